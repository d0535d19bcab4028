"""A CSV file of your own: a row is what a sensor measured at a moment; one column has the client, one the label.

python examples/own_csv.py my_data.csv
"""

import sys

from fedali import simulate


def main(path, **settings):
    """Compare two methods; `fedali data my_data.csv` says how a file is read, and what may be set."""
    data = {"source": path, "window": 64, "stride": 32}
    return simulate(data=data, methods=["fedali", "fedavg"], **{"rounds": 10, **settings})


if __name__ == "__main__":
    print(main(sys.argv[1]))

"""Small files in exactly the form of the public data sets, as they are downloaded and unpacked."""

import io
import tarfile
import zipfile

import numpy as np

FORMS = ("as downloaded", "outer unpacked", "unpacked")


def zipped(files):
    """The bytes of a zip; what is a mapping is a zip within."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, zipped(content) if isinstance(content, dict) else content)
    return stream.getvalue()


def put(folder, files, form, name="set.zip"):
    """Write ``files`` in one of ``FORMS``; what to give as a path."""
    if form == FORMS[0]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(zipped(files))
        return folder / name
    _write(folder / "set", files, form == FORMS[2])
    return folder / "set"


def _write(folder, files, inner):
    for name, content in files.items():
        if isinstance(content, dict) and inner:
            _write((folder / name).parent, content, inner)
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = zipped(content) if isinstance(content, dict) else content
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def tarred(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content.encode())
            archive.addfile(member, io.BytesIO(content.encode()))
    return path


def signal(seed, rows, channels):
    """Numbers that have few decimals, so that text keeps them whole."""
    return np.random.default_rng(seed).integers(-4000, 4000, (rows, channels)) / 1000


def blanks(table, form="{:.4f}"):
    return "".join(
        " ".join("NaN" if np.isnan(v) else form.format(v) for v in row) + "\n" for row in table.tolist()
    )


def windows(values, window, stride):
    """The slow, obvious way."""
    found = [values[k : k + window] for k in range(0, len(values) - window + 1, stride)]
    return np.array(found, np.float32)


def same(one, other):
    """Whether two data sets are equal in all that training sees."""
    arrays = ("x", "y", "client", "recording", "start")
    names = ("client_names", "class_names", "channel_names", "length", "interval", "stride")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays) and all(
        getattr(one, name) == getattr(other, name) for name in names
    )

"""What FedAli makes of data before anybody trains."""

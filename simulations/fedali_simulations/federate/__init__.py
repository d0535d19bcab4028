"""Federations of devices, real ones and this machine's: started, run, exported."""

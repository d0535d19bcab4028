"""Data that are objects of a program: arrays, torch's and Hugging Face's data sets, clients one by one."""

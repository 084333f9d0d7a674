"""Code of kinds that are not there yet; tests/test_house.py holds the list, and each new kind takes its own out of it."""

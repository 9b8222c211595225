"""Customers as numbers: visits, value (closed form beside LightGBM), segments, response to offers.

Functions from frames and arrays to frames and dataclasses. Dagster, files, names and addresses do not belong here.
"""

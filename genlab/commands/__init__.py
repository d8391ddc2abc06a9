"""A module for each verb of the command line."""

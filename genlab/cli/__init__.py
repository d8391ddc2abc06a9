"""The command line: verbs in front of Hydra's grammar. Nothing here imports torch before a verb needs it."""

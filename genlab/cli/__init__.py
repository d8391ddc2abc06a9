"""The command line: verbs in front of Hydra's grammar. torch is imported only when a verb needs it."""

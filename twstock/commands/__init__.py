"""The commands of ``twstock``, and what nothing but the command line needs."""

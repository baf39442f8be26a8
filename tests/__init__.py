"""The tests of twstock."""

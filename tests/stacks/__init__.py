"""One file that processes under test import before all others."""

"""What holds for every test: hypothesis leaves time limits to pytest-timeout and prints how to replay."""

from hypothesis import settings

settings.register_profile("headrace", deadline=None, print_blob=True)
settings.load_profile("headrace")

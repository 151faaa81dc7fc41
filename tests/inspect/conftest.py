"""The browser is an extra: it does not exist for every system."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("lightpanda") else ["test_page_in_browser.py"]

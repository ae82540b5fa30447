"""As for the library's tests: shapes are checked at run time, property tests have no deadline."""

from tests import conftest as conftest

import shutil

import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("icarus") and not shutil.which("iverilog"):
        pytest.skip("Icarus Verilog (iverilog) is not installed")

"""What Airflow knows of the package once it is installed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import jsonschema
import pytest
import yaml

import balance_bridge
from balance_bridge.provider import OPTIONS, get_provider_info

ROOT = Path(__file__).parents[1]
TYPES = {"ascendex": "AscendexHook", "elven": "ElvenHook", "amlyze": "AmlyzeHook"}


@pytest.fixture(scope="module")
def manager() -> Any:
    from airflow.providers_manager import ProvidersManager

    return ProvidersManager()


def test_the_provider_info_is_what_airflow_s_schema_asks_for() -> None:
    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def classes(base: type, modules: Iterable[str]) -> set[str]:
    """The classes of a kind that modules define and nothing there is derived from, by their full names."""
    found = {
        each
        for name in modules
        for each in vars(import_module(name)).values()
        if isinstance(each, type) and issubclass(each, base) and each.__module__ in modules
    }
    bases = {parent for each in found for parent in each.__mro__[1:]}
    return {f"{each.__module__}.{each.__name__}" for each in found - bases}


@pytest.mark.parametrize(
    ("room", "base", "not_for_dags"),
    [
        ("operators", "balance_bridge.operators.base.BridgeOperator", {"balance_bridge.operators.base"}),
        ("hooks", "balance_bridge.hooks.connection.ApiHook", {"balance_bridge.hooks.connection"}),
    ],
)
def test_the_provider_info_and_the_registry_s_file_list_each_operator_and_hook(
    room: str, base: str, not_for_dags: set[str]
) -> None:
    package = import_module(f"balance_bridge.{room}")
    modules = {f"{package.__name__}.{each.name}" for each in iter_modules(package.__path__)} - not_for_dags
    module, _, name = base.rpartition(".")
    there = classes(getattr(import_module(module), name), modules)
    assert there
    (listed,) = get_provider_info()[room]
    assert set(listed["python-modules"]) == {each.rpartition(".")[0] for each in there}
    registry = yaml.safe_load((ROOT / ".airflow-registry.yaml").read_text())
    assert {each["module"] for each in registry[room]} == there
    assert all(each["description"] for each in registry[room])
    assert registry["package-name"] == get_provider_info()["package-name"]


def test_an_asset_s_uri_is_kept_as_it_is() -> None:
    from airflow.sdk import Asset
    from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

    assert "balance-bridge" in ProvidersManagerTaskRuntime().asset_uri_handlers
    assert Asset("balance-bridge://main_cash/elven").uri == "balance-bridge://main_cash/elven"


def test_the_provider_is_found_by_its_entry_point_with_the_package_s_version(manager: Any) -> None:
    (point,) = [each for each in entry_points(group="apache_airflow_provider") if "balance_bridge" in each.value]
    assert point.load() is get_provider_info
    assert manager.providers["balance-bridge"].version == balance_bridge.__version__
    assert get_provider_info()["versions"][0] == balance_bridge.__version__


def test_the_plugin_is_found_by_its_entry_point() -> None:
    from airflow.plugins_manager import AirflowPlugin

    (point,) = [each for each in entry_points(group="airflow.plugins") if "balance_bridge" in each.value]
    plugin = point.load()
    assert issubclass(plugin, AirflowPlugin)
    assert plugin.name == "balance_bridge"
    plugin.validate()


@pytest.mark.parametrize(("kind", "hook"), TYPES.items())
def test_each_connection_type_has_its_hook(kind: str, hook: str) -> None:
    from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

    found = ProvidersManagerTaskRuntime().hooks[kind]
    assert found.connection_type == kind
    assert found.hook_class_name == f"balance_bridge.hooks.{kind}.{hook}"
    # Without this, Airflow's form offers no test.
    assert found.connection_testable is True


@pytest.mark.parametrize(
    ("kind", "hidden", "labels"),
    [
        ("ascendex", {"schema", "port", "extra"}, {"host": "Base URL", "login": "API key", "password": "API secret"}),
        ("elven", {"schema", "port", "extra"}, {"host": "Base URL", "login": "API key", "password": "API secret"}),
        (
            "amlyze",
            {"schema", "port", "extra", "login"},
            {"host": "Tenant's base URL", "password": "Bearer token"},
        ),
    ],
)
def test_each_form_shows_what_is_needed_under_its_own_name(
    manager: Any, kind: str, hidden: set[str], labels: dict[str, str]
) -> None:
    form = manager.field_behaviours[kind]
    assert set(form["hidden_fields"] if "hidden_fields" in form else form["hidden-fields"]) == hidden
    assert form["relabeling"] == labels
    # Every field that is shown says what belongs there.
    assert set(form["placeholders"]) == set(labels)


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_has_its_default_without_any_setting(
    monkeypatch: pytest.MonkeyPatch, airflow_home: Any, option: str
) -> None:
    from airflow.sdk.configuration import conf

    monkeypatch.delenv(f"AIRFLOW__BALANCE_BRIDGE__{option.upper()}", raising=False)
    assert conf.get("balance_bridge", option) == OPTIONS[option]["default"].format(AIRFLOW_HOME=airflow_home)


def test_airflow_s_configuration_lists_the_options(manager: Any) -> None:
    configs = dict(manager.provider_configs)
    assert set(configs["balance-bridge"]["balance_bridge"]["options"]) == set(OPTIONS)
    assert set(OPTIONS) == {"accounts_file", "store", "retry_delay", "budget", "namespace"}


def test_the_budget_s_url_is_masked_as_a_secret() -> None:
    from airflow.configuration import conf as server_conf
    from airflow.sdk.configuration import conf as task_conf

    for conf in (server_conf, task_conf):
        assert ("balance_bridge", "budget") in conf.sensitive_config_values

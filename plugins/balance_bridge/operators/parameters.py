"""What a run may be triggered with.

Airflow takes any key of a trigger's JSON for a parameter, and a misspelt ``dry_run`` would be a real delivery. So every
task of every DAG checks it before it does anything, in whatever order a run's tasks are run or cleared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from balance_bridge.accounts.problems import did_you_mean
from balance_bridge.errors import ConfigurationError


def check_names(context: Mapping[str, Any]) -> None:
    """Refuse a parameter that the DAG does not have, or that Airflow would ignore.

    Args:
        context: Airflow's context of the task.

    Raises:
        ConfigurationError: With the parameter's name, and what is allowed.
    """
    allowed = context["dag"].params
    conf, params = context["dag_run"].conf or {}, context["params"]
    # Airflow has mixed the trigger's JSON into the context's, and those of `airflow tasks test --task-params` as well.
    for name in {**conf, **params}:
        if name not in allowed:
            raise ConfigurationError(
                f"this run was triggered with {name!r}, which is not a parameter of this DAG"
                f"{did_you_mean(name, allowed)}",
                why=f"allowed: {', '.join(allowed) or 'none'}",
                do="Trigger the DAG again without it, or spelt as allowed.",
            )
    for name, value in conf.items():
        if params.get(name) != value:
            raise ConfigurationError(
                f"this run was triggered with {name!r}, which Airflow ignores here",
                why="its option [core] dag_run_conf_overrides_params is False",
                do="Set the option to True, then clear this run.",
            )


def check_destinations(chosen: list[str], account: str, allowed: Iterable[str]) -> None:
    """Refuse a choice of destinations that the account does not have, or that is empty.

    Args:
        chosen: The parameter ``destinations``.
        account: The account's name.
        allowed: The names of its destinations, as the accounts file has them now.

    Raises:
        ConfigurationError: With the names, and what is allowed.
    """
    names = list(allowed)
    allows = f"allowed: {', '.join(names)}"
    if not chosen:
        raise ConfigurationError(
            f"destinations = [] names no destination of {account}",
            why=allows,
            do="Trigger the DAG with some of them, or leave the parameter out to deliver to all.",
        )
    unknown = [name for name in dict.fromkeys(chosen) if name not in names]
    if unknown:
        raise ConfigurationError(
            f"destinations = {', '.join(map(repr, unknown))}: {account} has no destination of that name"
            f"{did_you_mean(unknown[0], names)}",
            why=allows,
            do="Trigger the DAG with destinations that the accounts file has.",
        )

"""The tasks that ask a person whether a day that does not add up may be delivered.

A task that waits for a person keeps its run active, and with one active run per DAG the following days would wait as
well. So the day's run ends red, and starts a run of a DAG of its own that asks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowSkipException, DagRunTriggerException

from balance_bridge import decisions, settings
from balance_bridge.days import approval_dag_id, dag_id
from balance_bridge.decisions import Act, Decision, newest_report
from balance_bridge.errors import ConfigurationError
from balance_bridge.operators.base import AccountOperator, BridgeOperator, run_of, without_traceback

if TYPE_CHECKING:
    from balance_bridge.facts import Day

_SHOWN = 20
_SHORT = 12
_REASON = "reason"


class AskAboutBreak(AccountOperator):
    """Starts the run that asks about a day, if it does not add up and nobody has decided yet; else it is skipped.

    Args:
        extracted: What the history's task of this run handed on.
    """

    template_fields: Sequence[str] = ("day", "extracted")

    def __init__(self, *, extracted: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.extracted = extracted

    @without_traceback
    def execute(self, context: Any) -> None:
        """Start the run."""
        if not self.extracted:
            raise AirflowSkipException("the day's run failed before anything was proven")
        day, store = date.fromisoformat(self.day), settings.open_store()
        report = newest_report(store, self.account, day)
        if report is None or report["status"] != "broken" or report["manifest"] != self.extracted["manifest"]:
            raise AirflowSkipException("the day's run did not fail because of a break")
        if decisions.about(store, self.account, day, report["proof"]) is not None:
            raise AirflowSkipException("somebody has decided already")
        raise _start(
            approval_dag_id(self.account),
            # Of this run: what was asked and is over may have to be asked again.
            f"{day}__break__{report['proof'][:_SHORT]}__{_digest(run_of(context))}",
            {"date": self.day, "proof": report["proof"]},
            f"{self.account} {day}: may it be delivered although it does not add up?",
        )


class RunApproved(BridgeOperator):
    """Starts the run that delivers a day that was approved.

    Args:
        account: The account's name.
    """

    ui_color = "#e8f0f8"

    def __init__(self, *, account: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.account = account

    @without_traceback
    def execute(self, context: Any) -> None:
        """Start the run."""
        day, proof = _asked(context)
        name = f"{day}__approved__{proof[:_SHORT]}"
        raise _start(dag_id(self.account), name, {"date": str(day)}, f"{self.account} {day}: approved")


class Approval(BridgeOperator, ApprovalOperator):
    """Asks whether a day may be delivered although it does not add up, and puts the answer on record.

    Args:
        account: The account's name.
    """

    ui_color = "#e8f0f8"

    def __init__(self, *, account: str, params: Any = None, **kwargs: Any) -> None:
        reason = Param("", type="string", source="task", title="Reason", description="Recorded with your name.")
        super().__init__(
            subject=f"{account}: may a day be delivered although it does not add up?",
            params={**(params or {}), _REASON: reason},
            **kwargs,
        )
        self.account = account

    def check_parameters(self, context: Any) -> None:
        """See :meth:`BridgeOperator.check_parameters`; the answer's own field is no parameter of the run."""
        run = {name: value for name, value in context["params"].items() if name != _REASON}
        super().check_parameters({**context, "params": run})

    @without_traceback
    def execute(self, context: Any) -> Any:
        """Ask; what is asked is made from the day's report as it is now."""
        from balance_bridge.facts import read_day

        day, proof = _asked(context)
        store = settings.open_store()
        known = decisions.about(store, self.account, day, proof)
        if known is not None:
            # On the page; or by an answer to this very task, which was killed after it had put that on record.
            if known.act is Act.APPROVED:
                return None
            raise AirflowSkipException(f"{known.by} has refused it")
        report = newest_report(store, self.account, day)
        if report is None or report["proof"] != proof or report["status"] != "broken":
            raise AirflowSkipException(f"{self.account} {day} has another proof by now")
        self.subject = f"{self.account} {day}: deliver it although it does not add up?"
        self.body = question(self.account, day, report, read_day(store, self.account, day))
        return super().execute(context)

    @without_traceback
    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Put the answer on record. After a refusal nothing is delivered."""
        if "error" not in event:
            day, proof = _asked(context)
            reason = (event.get("params_input") or {}).get(_REASON)
            if not isinstance(reason, str) or not reason.strip():
                raise ConfigurationError(
                    f"{self.account} {day}: the answer has no reason, and was not taken",
                    do="Clear this task and answer again, or decide on the page Balances",
                )
            act = Act.APPROVED if self.APPROVE in event["chosen_options"] else Act.REFUSED
            user = event.get("responded_by_user") or {}
            by = str(user.get("name") or user.get("id") or "unknown")
            answer = Decision(act, by, decisions.now(), reason.strip(), proof=proof)
            known = decisions.decide(settings.open_store(), self.account, day, answer)
            if known.act is not act:
                raise AirflowSkipException(f"{known.by} has already decided: {known.act}")
            self.log.info("%s %s: %s by %s (%s)", self.account, day, known.act, known.by, known.reason)
        return super().execute_complete(context, event)


def question(account: str, day: date, report: dict[str, Any], known: Day) -> str:
    """What somebody has to know to decide about a break, as Markdown."""
    from balance_bridge.states import held_text

    breaks = report["breaks"][:_SHOWN]
    rows = [
        f"| {_cell(each['asset'])} | {each['amount']} | {each['last_good_sn']} | {each['first_bad_sn']} |"
        for each in breaks
    ]
    more = report["break_count"] - len(breaks)
    base = conf.get("api", "base_url", fallback="").rstrip("/")
    return "\n".join(
        [
            f"The balances of **{account}** on **{day}** (UTC) do not add up: opening + changes is not closing, or a",
            f"record's balance does not follow from the one before it. {held_text(known)}",
            "",
            "| asset | unexplained | last good sn | first bad sn |",
            "|---|---|---|---|",
            *rows,
            *([f"\nAnd {more} more."] if more > 0 else []),
            "",
            "*Approve* delivers the day as it is in the exchange's snapshots and records, marked with your name.",
            "*Reject* refuses that, and the day stays held. Both are recorded.",
            *([f"\n[The whole day]({base}/balances/day/{account}/{day})"] if base else []),
        ]
    )


def _asked(context: Any) -> tuple[date, str]:
    params = context["params"]
    return date.fromisoformat(params["date"]), str(params["proof"])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _start(dag: str, run_id: str, params: dict[str, Any], note: str) -> DagRunTriggerException:
    """What makes Airflow start a run, once; raised by a task, it ends the task as a success.

    Airflow's own operator for this does the same, and takes a third of a second to import.
    """
    return DagRunTriggerException(
        trigger_dag_id=dag,
        dag_run_id=run_id,
        conf=params,
        reset_dag_run=False,
        skip_when_already_exists=True,
        wait_for_completion=False,
        allowed_states=[],
        failed_states=[],
        poke_interval=60,
        deferrable=False,
        note=note,
    )

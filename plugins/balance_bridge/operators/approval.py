"""The tasks that ask a person whether a day that does not add up may be delivered.

A task that waits for a person keeps its run active, and with one active run per DAG the following days would wait as
well. So the day's run ends red, and starts a run of a DAG of its own that asks.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowSkipException, DagRunTriggerException

from balance_bridge import decisions, settings
from balance_bridge.clock import utc_text
from balance_bridge.days import approval_dag_id, dag_id
from balance_bridge.decisions import Act, Decision, newest_report
from balance_bridge.operators.base import AccountOperator, BridgeOperator, without_traceback

_SHOWN = 20
_SHORT = 12
_REASON = "reason"


class AskAboutBreak(AccountOperator):
    """Starts the run that asks about a day, if it does not add up and nobody has decided yet; else it is skipped."""

    @without_traceback
    def execute(self, context: Any) -> None:  # noqa: ARG002
        """Start the run."""
        day = date.fromisoformat(self.day) if self.day else None
        store = settings.open_store()
        report = newest_report(store, self.account, day) if day else None
        if day is None or report is None or report["status"] != "broken":
            raise AirflowSkipException("the day's run did not fail because of a break")
        if decisions.about(store, self.account, day, report["proof"]) is not None:
            raise AirflowSkipException("somebody has already decided")
        raise _start(
            approval_dag_id(self.account),
            f"{day}__break__{report['proof'][:_SHORT]}",
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
        day, proof = _asked(context)
        report = newest_report(settings.open_store(), self.account, day)
        if report is None or report["proof"] != proof:
            raise AirflowSkipException(f"{self.account} {day} now has another report, about which another run asks")
        self.subject = f"{self.account} {day}: deliver it although it does not add up?"
        self.body = question(self.account, day, report)
        return super().execute(context)

    @without_traceback
    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Put the answer on record. After a refusal nothing is delivered."""
        if "error" not in event:
            day, proof = _asked(context)
            store = settings.open_store()
            act = Act.APPROVED if self.APPROVE in event["chosen_options"] else Act.REFUSED
            user = event.get("responded_by_user") or {}
            by = str(user.get("name") or user.get("id") or "unknown")
            reason = str((event.get("params_input") or {}).get(_REASON, ""))
            answer = Decision(act, by, utc_text(event["responded_at"].timestamp()), reason, proof=proof)
            known = decisions.about(store, self.account, day, proof)
            # The same answer again is this task's own, which was killed after it had put it on record.
            if known is not None and known != answer:
                raise AirflowSkipException(f"{known.by} has already decided: {known.act}")
            decisions.record(store, self.account, day, answer)
            self.log.info("%s %s: %s by %s (%s)", self.account, day, act, by, reason or "no reason given")
        return super().execute_complete(context, event)


def question(account: str, day: date, report: dict[str, Any]) -> str:
    """What somebody has to know to decide about a break, as Markdown."""
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
            "record's balance does not follow from the one before it. Nothing of the day was delivered.",
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

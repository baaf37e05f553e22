"""What each column of a view means: one dictionary, because a name means the same in all of them.

A column that a table has too is described there, unless a view resolves its NULLs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..tables.audit import SYNC_RUNS
from ..tables.conversations import CONVERSATIONS, TURN_TOPICS

FieldType = Literal["text", "bigint", "double", "bool", "timestamp", "local timestamp", "date"]
"""A timestamp is a moment; a local one has no zone of its own: it is the reporting zone's clock."""


@dataclass(frozen=True)
class Field:
    """A column of a view.

    Attributes:
        name: As in SQL.
        type: Ours; `documents` tells what databases call it.
        unit: Of a number; empty for a count and for what is none.
        meaning: A sentence.
    """

    name: str
    type: FieldType
    unit: str
    meaning: str

    @property
    def comment(self) -> str:
        """What a database shows beside it: the meaning, and the unit where there is one."""
        return f"{self.meaning} Unit: {self.unit}." if self.unit else self.meaning


_CHANGE = "This day minus the day before, of the same row's kind; NULL without both."

_DECLARED: tuple[Field, ...] = (
    # what rows are grouped by
    Field("agent_id", "text", "", "The agent (project) that held the conversation."),
    Field("channel", "text", "", "Medium, such as VOICE-SIP or WEBCHAT; `unknown`: not told."),
    Field("is_voice", "bool", "", "The channel is a call: its name begins with VOICE."),
    Field("direction", "text", "", "inbound or outbound; `unknown`: not told."),
    Field("environment", "text", "", "live, sandbox or pre-release; `unknown`: not told."),
    Field("variant_id", "text", "", "Variant that answered; `none`: no variant."),
    Field("local_date", "date", "", "Day on which the conversation began, in the reporting zone."),
    Field("next_local_date", "date", "", "The day after `local_date`; joins a day to its past."),
    # when
    Field("began_at", "timestamp", "UTC", "When it began: started_at, else created_at."),
    Field(
        "local_started_at", "local timestamp", "", "When it began, by the reporting zone's clock."
    ),
    Field("local_hour", "bigint", "h", "Hour of the day in which it began, 0 to 23."),
    Field("first_turn_at", "timestamp", "UTC", "When its first turn began."),
    Field("last_turn_at", "timestamp", "UTC", "When its last turn was answered."),
    Field("first_local_date", "date", "", "Local date of the first conversation."),
    Field("last_local_date", "date", "", "Local date of the newest conversation."),
    # how it ended
    Field("is_finished", "bool", "", "It was over when it was read."),
    Field("is_handed_off", "bool", "", "Handed to a human."),
    Field(
        "is_contained",
        "bool",
        "",
        "Finished without a handoff, also where the caller gave up; NULL while in progress.",
    ),
    Field(
        "is_abandoned",
        "bool",
        "",
        "Finished without a handoff, and given up: the metric CHAT_ABANDONED says yes, or it is a "
        "call in which the caller said nothing or that was over within 10 seconds.",
    ),
    Field(
        "is_contained_excl_abandoned",
        "bool",
        "",
        "Contained and not abandoned; NULL while in progress.",
    ),
    Field(
        "handle_time_seconds",
        "double",
        "s",
        "Whole contact, handoff included; NULL while in progress.",
    ),
    Field(
        "poly_score_band",
        "text",
        "",
        "high (5), medium (3 to below 5) or low (below 3); on the 1-5 scale only.",
    ),
    # turns
    Field(
        "num_user_turns", "bigint", "", "Turns with a word or a key of the caller; NULL: no turns."
    ),
    Field("num_barge_ins", "bigint", "", "Turns in which the caller spoke over the agent."),
    Field(
        "has_caller_spoken", "bool", "", "The caller said a word or pressed a key; NULL: unknown."
    ),
    Field("first_agent_response", "text", "", "What the agent said in the first turn."),
    Field("last_user_input", "text", "", "What the caller said in the last turn."),
    Field("last_agent_response", "text", "", "What the agent said in the last turn."),
    Field("turns", "bigint", "", "Turns."),
    Field("latency_turns", "bigint", "", "Turns whose latency is known."),
    Field("latency_seconds_sum", "double", "s", "Latencies of all turns, added up."),
    Field("latency_seconds_mean", "double", "s", "Mean latency of a turn."),
    Field("latency_seconds_p50", "double", "s", "Median latency of the turns."),
    Field("latency_seconds_p95", "double", "s", "95th percentile of the turns' latencies."),
    Field("latency_seconds_p99", "double", "s", "99th percentile of the turns' latencies."),
    Field("latency_seconds_max", "double", "s", "Longest latency of a turn."),
    Field("num_turns_over_2s", "bigint", "", "Turns that took longer than PolyAI's target of 2 s."),
    Field("num_turns_over_3s", "bigint", "", "Turns that took longer than 3 s."),
    # functions
    Field("function_name", "text", "", "The function; `unknown`: not told."),
    Field("function_calls", "bigint", "", "Calls of functions."),
    Field("function_errors", "bigint", "", "Calls of functions that failed."),
    Field("function_error_rate", "double", "ratio", "Failed calls ÷ calls."),
    Field("function_duration_ms_mean", "double", "ms", "Mean duration of a call."),
    Field("function_duration_ms_p50", "double", "ms", "Median duration of the calls."),
    Field("function_duration_ms_p95", "double", "ms", "95th percentile of the calls' durations."),
    # the survey
    Field("is_csat_offered", "bool", "", "The satisfaction survey was offered, or answered."),
    Field("is_accepted", "bool", "", "The caller agreed to the survey."),
    Field("is_denied", "bool", "", "The caller declined the survey."),
    Field("is_completed", "bool", "", "The caller answered the whole survey."),
    Field("csat_score", "double", "1-5", "Satisfaction; the last valid one. NULL: no answer."),
    Field("csat_band", "text", "", "satisfied (4 to 5), neutral, or dissatisfied (1 to 2)."),
    Field("csat_scored_at", "timestamp", "UTC", "When the score was given."),
    Field("csat_feedback", "text", "", "What the caller said in words."),
    Field("csat_offers", "bigint", "", "Conversations in which the survey was offered."),
    Field("csat_answers", "bigint", "", "Conversations with a score of the survey."),
    Field("csat_score_sum", "double", "1-5", "Scores of the survey, added up."),
    Field("csat_satisfied", "bigint", "", "Scores of 4 or 5."),
    Field("csat_dissatisfied", "bigint", "", "Scores of 1 or 2."),
    Field("csat_mean", "double", "1-5", "csat_score_sum ÷ csat_answers."),
    Field("csat_response_rate", "double", "ratio", "csat_answers ÷ csat_offers."),
    Field(
        "csat_net_share",
        "double",
        "ratio",
        "(csat_satisfied − csat_dissatisfied) ÷ csat_answers, from −1 to 1.",
    ),
    # annotations
    Field("num_annotations", "bigint", "", "Annotations of its turns."),
    Field("num_missing_topic", "bigint", "", "Annotations of the type missing_topic."),
    Field("num_wrong_transcript", "bigint", "", "Annotations of the type wrong_transcript."),
    Field("num_wrong_info", "bigint", "", "Annotations of the type wrong_info."),
    Field("num_reasons", "bigint", "", "How many of the reasons for a look hold."),
    Field("has_low_score", "bool", "", "PolyScore below 3 on the 1-5 scale."),
    Field("has_ood", "bool", "", "A turn was out of domain."),
    Field("has_long_silence", "bool", "", "Two silent turns or more."),
    Field("has_high_latency", "bool", "", "The 95th percentile of its latencies is above 3 s."),
    # repeat callers
    Field("is_repeat_caller", "bool", "", "A metric REPEAT_CALLER_* says yes."),
    Field("caller", "text", "", "Number of an inbound conversation, also hashed; NULL: not known."),
    Field("contact_number", "bigint", "", "Which conversation of the caller it is, from 1."),
    Field("previous_conversation_id", "text", "", "The caller's conversation before."),
    Field("previous_began_at", "timestamp", "UTC", "When that one began."),
    Field("hours_since_previous", "double", "h", "From its begin to this one's."),
    # counts and sums of a group
    Field("conversations", "bigint", "", "Conversations, those in progress too."),
    Field("finished_conversations", "bigint", "", "Those that are over."),
    Field("handed_off_conversations", "bigint", "", "Finished ones that were handed to a human."),
    Field("contained_conversations", "bigint", "", "Finished ones without a handoff."),
    Field("abandoned_conversations", "bigint", "", "Finished ones that the caller gave up."),
    Field("contained_excl_abandoned_conversations", "bigint", "", "Contained, and not given up."),
    Field("answered_conversations", "bigint", "", "Finished ones in which somebody spoke."),
    Field("timed_conversations", "bigint", "", "Finished ones whose duration is known."),
    Field("handle_time_seconds_sum", "double", "s", "Their handle times, added up."),
    Field("scored_conversations_1_5", "bigint", "", "With a PolyScore on the 1-5 scale."),
    Field("poly_score_1_5_sum", "double", "1-5", "Their scores, added up."),
    Field("scored_conversations_0_10", "bigint", "", "With a PolyScore on the older 0-10 scale."),
    Field("poly_score_0_10_sum", "double", "0-10", "Their scores, added up."),
    Field("high_score_conversations", "bigint", "", "PolyScore of 5 on the 1-5 scale."),
    Field("medium_score_conversations", "bigint", "", "PolyScore of 3 to below 5 on that scale."),
    Field("low_score_conversations", "bigint", "", "PolyScore below 3 on that scale."),
    Field("retrievals", "bigint", "", "Times that the topic was retrieved."),
    # rates and means of a group
    Field("containment_rate", "double", "ratio", "contained ÷ finished conversations."),
    Field(
        "containment_rate_excl_abandoned",
        "double",
        "ratio",
        "contained_excl_abandoned ÷ finished conversations: the stricter containment.",
    ),
    Field("handoff_rate", "double", "ratio", "handed_off ÷ finished conversations."),
    Field("answer_rate", "double", "ratio", "answered ÷ finished conversations."),
    Field("handle_time_seconds_mean", "double", "s", "Mean handle time of a conversation."),
    Field("handle_time_seconds_p50", "double", "s", "Median handle time."),
    Field("handle_time_seconds_p95", "double", "s", "95th percentile of the handle times."),
    Field("poly_score_1_5_mean", "double", "1-5", "Mean PolyScore on the 1-5 scale."),
    Field("poly_score_0_10_mean", "double", "0-10", "Mean PolyScore on the older 0-10 scale."),
    Field("conversations_change", "bigint", "", "This day minus the day before; none counts as 0."),
    Field("containment_rate_change", "double", "ratio", _CHANGE),
    Field("containment_rate_excl_abandoned_change", "double", "ratio", _CHANGE),
    Field("handoff_rate_change", "double", "ratio", _CHANGE),
    Field("handle_time_seconds_mean_change", "double", "s", _CHANGE),
    Field("handle_time_seconds_p50_change", "double", "s", _CHANGE),
    Field("handle_time_seconds_p95_change", "double", "s", _CHANGE),
    Field("poly_score_1_5_mean_change", "double", "1-5", _CHANGE),
    Field("poly_score_0_10_mean_change", "double", "0-10", _CHANGE),
    Field("csat_mean_change", "double", "1-5", _CHANGE),
    Field("csat_response_rate_change", "double", "ratio", _CHANGE),
    Field("csat_net_share_change", "double", "ratio", _CHANGE),
    Field("latency_seconds_p50_change", "double", "s", _CHANGE),
    Field("latency_seconds_p95_change", "double", "s", _CHANGE),
    # the calendar
    Field("year", "bigint", "", "Year."),
    Field("quarter", "bigint", "", "Quarter, 1 to 4."),
    Field("month", "bigint", "", "Month, 1 to 12."),
    Field("day_of_month", "bigint", "", "Day of the month, 1 to 31."),
    Field("iso_year", "bigint", "", "Year that the ISO week belongs to."),
    Field("iso_week", "bigint", "", "ISO 8601 week, 1 to 53."),
    Field("iso_weekday", "bigint", "", "1 for Monday to 7 for Sunday."),
    Field("is_weekend", "bool", "", "Saturday or Sunday."),
    Field("hours", "double", "h", "Length of the day: 24, but 23 or 25 where the clock changes."),
    # red flags
    Field("flag", "text", "", "Which threshold was crossed."),
    Field("value", "double", "as the flag", "What was measured."),
    Field("threshold", "double", "as the flag", "What it had to keep to."),
    Field("baseline", "double", "as the flag", "What is usual; NULL: the threshold is fixed."),
    # freshness
    Field("newest_conversation_at", "timestamp", "UTC", "When the newest conversation began."),
    Field("newest_fetched_at", "timestamp", "UTC", "When a conversation was last read."),
    Field("last_complete_load_at", "timestamp", "UTC", "When the last load ended that read all."),
    Field("load_age_minutes", "double", "min", "Time since then."),
    Field("in_progress_conversations", "bigint", "", "Those that were not over when last read."),
    Field("withheld_conversations", "bigint", "", "Those whose newest answer came without turns."),
    Field("open_failures", "bigint", "", "Conversations that could not be read so far."),
    Field("api_conversations", "bigint", "", "Conversations that PolyAI had at the last load."),
    Field("missing_conversations", "bigint", "", "Of these, those of which there is no trace."),
    # the views themselves
    Field("reporting_time_zone", "text", "", "IANA name of the zone that local dates are in."),
    Field("fingerprint", "text", "", "Hash of the statements that made them."),
)

FROM_TABLES: tuple[Field, ...] = tuple(
    Field(column.name, column.type, column.unit, column.description)
    for table in (SYNC_RUNS, TURN_TOPICS, CONVERSATIONS)
    for column in table.columns
    if column.type != "json" and not any(column.name == field.name for field in _DECLARED)
)

FIELDS: Mapping[str, Field] = {field.name: field for field in (*FROM_TABLES, *_DECLARED)}
"""By name. Where two tables have a column of one name, its meaning is the later one's."""

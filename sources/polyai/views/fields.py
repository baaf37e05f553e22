"""Dictionary of the columns of views: a name has one type, unit and meaning in all views.

A column of a table keeps the description of the table, unless the views replace its NULLs.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..tables.audit import SYNC_RUNS
from ..tables.conversations import CONVERSATIONS
from ..tables.names import AGENTS
from ..tables.recordings import RECORDINGS
from ..tables.turns import TURN_TOPICS
from .field import Field
from .measures import MEASURES

_DECLARED: tuple[Field, ...] = (
    # dimensions
    Field("channel", "text", "", "Channel, such as VOICE-SIP or WEBCHAT, or `unknown`."),
    Field("is_voice", "bool", "", "The channel is a call: its name begins with VOICE."),
    Field("direction", "text", "", "Direction: inbound, outbound or `unknown`."),
    Field("environment", "text", "", "Environment: live, sandbox, pre-release or `unknown`."),
    Field("variant_id", "text", "", "Variant of the agent that answered, or `none`."),
    Field(
        "local_date", "date", "", "Day on which the conversation began, in the reporting time zone."
    ),
    Field(
        "next_local_date", "date", "", "Day after `local_date`, to join a day with the day before."
    ),
    # times
    Field(
        "began_at",
        "timestamp",
        "UTC",
        "Start of the conversation, or else its creation, or else the fetch.",
    ),
    Field(
        "local_started_at",
        "local timestamp",
        "",
        "Start of the conversation in the reporting time zone.",
    ),
    Field("local_hour", "bigint", "h", "Hour of the day of its start, 0 to 23."),
    Field("first_turn_at", "timestamp", "UTC", "Time of its first turn."),
    Field("last_turn_at", "timestamp", "UTC", "Time of the response in its last turn."),
    Field("first_local_date", "date", "", "Local date of the first conversation."),
    Field("last_local_date", "date", "", "Local date of the newest conversation."),
    # names behind ids
    Field("deployment_version", "text", "", "Version that was deployed, a hash; NULL if unknown."),
    Field("deployed_at", "timestamp", "UTC", "Time of the deployment; NULL if unknown."),
    Field("deployed_by", "text", "", "User who deployed it, an e-mail address; NULL if unknown."),
    Field("deployment_message", "text", "", "Message of the deployment; NULL if unknown."),
    # outcome
    Field("is_finished", "bool", "", "The conversation had ended when it was fetched."),
    Field("is_handed_off", "bool", "", "Handed off to a human."),
    Field(
        "is_contained",
        "bool",
        "",
        "Containment: finished without a handoff, even if the caller gave up; NULL while in "
        "progress.",
    ),
    Field(
        "is_abandoned",
        "bool",
        "",
        "Finished without a handoff and given up by the caller: the metric CHAT_ABANDONED is true, "
        "or it is a call in which the caller said nothing or that lasted less than 10 seconds.",
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
        "Duration of the whole contact, including the part after a handoff; NULL while in "
        "progress.",
    ),
    Field(
        "poly_score_band",
        "text",
        "",
        "PolyScore band on the 1-5 scale: high (5), medium (3 to below 5) or low (below 3); NULL "
        "on the other scale.",
    ),
    Field(
        "hangup_category",
        "text",
        "",
        "End of the conversation as this project classifies it: not_connected, handoff, or who "
        "hung up (caller, agent, unknown) and when (before_input, in_dialogue, after_completion), "
        "such as caller_in_dialogue; NULL while in progress. Of outbound calls, caller needs the "
        "metric USER_HANGUP.",
    ),
    # outbound calls
    Field(
        "is_connected",
        "bool",
        "",
        "Outbound call that was connected: CALL_CONNECTED is true, yes or 1; without it, the "
        "status is Success; NULL if unknown or inbound.",
    ),
    Field("is_call_completed", "bool", "", "The metric CALL_COMPLETED is true."),
    Field(
        "answered_by",
        "text",
        "",
        "Who answered, from CALL_ANSWERED_BY: human, else voicemail, else ivr; NULL if unknown.",
    ),
    Field("is_answered_by_human", "bool", "", "CALL_ANSWERED_BY has HUMAN."),
    Field("is_answered_by_voicemail", "bool", "", "CALL_ANSWERED_BY has VOICEMAIL."),
    Field("is_answered_by_ivr", "bool", "", "CALL_ANSWERED_BY has IVR."),
    Field(
        "call_status",
        "text",
        "",
        "OUTBOUND_CALL_STATUS of the last attempt: Success, Unavailable or Busy; NULL if unknown.",
    ),
    Field(
        "sip_code",
        "bigint",
        "",
        "OUTBOUND_CALL_SIP_CODE of the last attempt; NULL if unknown.",
    ),
    # turns
    Field("num_user_turns", "bigint", "", "Turns with input of the caller; NULL without turns."),
    Field("num_barge_ins", "bigint", "", "Turns with barge-in: the caller spoke over the agent."),
    Field("has_caller_spoken", "bool", "", "The caller spoke or pressed a key; NULL if unknown."),
    Field("first_agent_response", "text", "", "Response of the agent in the first turn."),
    Field("last_user_input", "text", "", "Input of the caller in the last turn."),
    Field("last_agent_response", "text", "", "Response of the agent in the last turn."),
    Field("turns", "bigint", "", "Turns."),
    Field("latency_turns", "bigint", "", "Turns with a known latency."),
    Field("latency_seconds_sum", "double", "s", "Sum of the latencies of all turns."),
    Field("latency_seconds_mean", "double", "s", "Mean latency of a turn."),
    Field("latency_seconds_p50", "double", "s", "Median latency of the turns."),
    Field("latency_seconds_p95", "double", "s", "95th percentile of the latencies of the turns."),
    Field("latency_seconds_p99", "double", "s", "99th percentile of the latencies of the turns."),
    Field("latency_seconds_max", "double", "s", "Maximum latency of a turn."),
    Field("num_turns_over_2s", "bigint", "", "Turns with a latency above PolyAI's target of 2 s."),
    Field("num_turns_over_3s", "bigint", "", "Turns with a latency above 3 s."),
    # functions
    Field("function_name", "text", "", "Name of the function, or `unknown`."),
    Field("function_calls", "bigint", "", "Function calls."),
    Field("function_errors", "bigint", "", "Function calls that failed."),
    Field("function_error_rate", "double", "ratio", "Failed calls ÷ calls."),
    Field("function_duration_ms_mean", "double", "ms", "Mean duration of a call."),
    Field("function_duration_ms_p50", "double", "ms", "Median duration of the calls."),
    Field(
        "function_duration_ms_p95", "double", "ms", "95th percentile of the durations of the calls."
    ),
    # satisfaction survey
    Field("is_csat_offered", "bool", "", "The satisfaction survey was offered or answered."),
    Field("is_accepted", "bool", "", "The caller agreed to the survey."),
    Field("is_denied", "bool", "", "The caller declined the survey."),
    Field("is_completed", "bool", "", "The caller answered the whole survey."),
    Field(
        "csat_score",
        "double",
        "1-5",
        "Satisfaction score, the last valid one; NULL without an answer.",
    ),
    Field(
        "csat_band",
        "text",
        "",
        "Satisfaction: satisfied (4 to 5), neutral or dissatisfied (1 to 2).",
    ),
    Field("csat_scored_at", "timestamp", "UTC", "Time of the score."),
    Field("csat_feedback", "text", "", "Feedback in the caller's words."),
    Field("csat_offers", "bigint", "", "Conversations in which the survey was offered."),
    Field("csat_answers", "bigint", "", "Conversations with a satisfaction score."),
    Field("csat_score_sum", "double", "1-5", "Sum of the satisfaction scores."),
    Field("csat_satisfied", "bigint", "", "Satisfaction scores of 4 or 5."),
    Field("csat_dissatisfied", "bigint", "", "Satisfaction scores of 1 or 2."),
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
    Field("num_good_responses", "bigint", "", "Annotations of the type good_response."),
    Field("num_bad_responses", "bigint", "", "Annotations of the type bad_response."),
    Field("num_reasons", "bigint", "", "Number of reasons for a review."),
    Field("has_low_score", "bool", "", "PolyScore below 3 on the 1-5 scale."),
    Field("has_ood", "bool", "", "At least one out-of-domain turn."),
    Field("has_long_silence", "bool", "", "At least two silent turns."),
    Field("has_high_latency", "bool", "", "95th percentile of its latencies above 3 s."),
    # repeat callers
    Field("is_repeat_caller", "bool", "", "A metric REPEAT_CALLER_* is true."),
    Field(
        "caller",
        "text",
        "",
        "Number of the caller of an inbound conversation, possibly hashed; NULL if unknown.",
    ),
    Field(
        "contact_number",
        "bigint",
        "",
        "Position of the conversation among those of the caller, from 1.",
    ),
    Field("previous_conversation_id", "text", "", "Previous conversation of the caller."),
    Field("previous_began_at", "timestamp", "UTC", "Start of the previous conversation."),
    Field(
        "hours_since_previous", "double", "h", "Time between the starts of the two conversations."
    ),
    *MEASURES,
    # the calendar
    Field("year", "bigint", "", "Year."),
    Field("quarter", "bigint", "", "Quarter, 1 to 4."),
    Field("month", "bigint", "", "Month, 1 to 12."),
    Field("day_of_month", "bigint", "", "Day of the month, 1 to 31."),
    Field("iso_year", "bigint", "", "ISO 8601 year of the week."),
    Field("iso_week", "bigint", "", "ISO 8601 week, 1 to 53."),
    Field("iso_weekday", "bigint", "", "Weekday, from 1 for Monday to 7 for Sunday."),
    Field("is_weekend", "bool", "", "Saturday or Sunday."),
    Field("hours", "double", "h", "Length of the day: 24, or 23 or 25 when the clocks change."),
    # red flags
    Field("flag", "text", "", "Name of the crossed threshold."),
    Field("value", "double", "as the flag", "Measured value."),
    Field("threshold", "double", "as the flag", "Threshold."),
    Field(
        "baseline",
        "double",
        "as the flag",
        "Usual value that the threshold derives from; NULL for a fixed threshold.",
    ),
    # freshness
    Field("newest_conversation_at", "timestamp", "UTC", "Start of the newest conversation."),
    Field("newest_fetched_at", "timestamp", "UTC", "Latest fetch of a conversation."),
    Field("last_complete_load_at", "timestamp", "UTC", "End of the last complete load."),
    Field("load_age_minutes", "double", "min", "Time since the end of the last complete load."),
    Field(
        "in_progress_conversations",
        "bigint",
        "",
        "Conversations that had not ended when they were last fetched.",
    ),
    Field(
        "withheld_conversations",
        "bigint",
        "",
        "Conversations whose latest detail came without their turns.",
    ),
    Field("open_failures", "bigint", "", "Conversations that could not be fetched so far."),
    Field(
        "api_conversations",
        "bigint",
        "",
        "Conversations that the API had at the last complete load.",
    ),
    Field(
        "missing_conversations",
        "bigint",
        "",
        "Conversations that the API had and the warehouse does not have, except for erased ones "
        "and open failures; NULL before a complete load.",
    ),
    # recordings
    Field("recorded_voices", "text", "", "Voices on the recording: combined, user or agent."),
    Field("is_redacted", "bool", "", "PolyAI blanked out personal data that the caller spoke."),
    Field("recording_seconds", "double", "s", "Length of the recording; NULL if it is unknown."),
    # the views themselves
    Field("reporting_time_zone", "text", "", "Time zone of local dates and times (IANA name)."),
    Field("fingerprint", "text", "", "Hash of the definitions that the views were created from."),
)

FROM_TABLES: tuple[Field, ...] = tuple(
    Field(column.name, column.type, column.unit, column.description)
    for table in (RECORDINGS, SYNC_RUNS, TURN_TOPICS, AGENTS, CONVERSATIONS)
    for column in table.columns
    if column.type != "json" and not any(column.name == field.name for field in _DECLARED)
)

FIELDS: Mapping[str, Field] = {field.name: field for field in (*FROM_TABLES, *_DECLARED)}
"""Columns by name. If several tables have a column, the last of them describes it."""

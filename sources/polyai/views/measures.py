"""Dictionary of the measures of views: counts, sums, rates and means of a group."""

from __future__ import annotations

from .field import Field

_CHANGE = (
    "Change from the day before, same agent, channel, environment and variant; NULL if either day "
    "has no value."
)

MEASURES: tuple[Field, ...] = (
    # counts and sums of a group
    Field("conversations", "bigint", "", "Conversations, including those in progress."),
    Field("finished_conversations", "bigint", "", "Conversations that have ended."),
    Field("handed_off_conversations", "bigint", "", "Finished conversations with a handoff."),
    Field("contained_conversations", "bigint", "", "Finished conversations without a handoff."),
    Field(
        "abandoned_conversations", "bigint", "", "Finished conversations that the caller gave up."
    ),
    Field(
        "contained_excl_abandoned_conversations",
        "bigint",
        "",
        "Contained conversations that the caller did not give up.",
    ),
    Field(
        "answered_conversations",
        "bigint",
        "",
        "Finished conversations in which the person called spoke.",
    ),
    Field(
        "attempted_conversations",
        "bigint",
        "",
        "Outbound calls that were placed: finished, with or without metrics, or with a status.",
    ),
    Field("connected_conversations", "bigint", "", "Outbound calls that were connected."),
    Field("human_conversations", "bigint", "", "Outbound calls that a human answered."),
    Field("voicemail_conversations", "bigint", "", "Outbound calls that a mailbox answered."),
    Field("ivr_conversations", "bigint", "", "Outbound calls that an IVR answered."),
    Field("completed_conversations", "bigint", "", "Outbound calls with CALL_COMPLETED."),
    Field(
        "caller_hangups",
        "bigint",
        "",
        "Outbound calls that the person called ended: connected, no handoff, and USER_HANGUP is "
        "true, unless only a voicemail answered.",
    ),
    Field("busy_conversations", "bigint", "", "Outbound calls with the status Busy."),
    Field("unavailable_conversations", "bigint", "", "Outbound calls with the status Unavailable."),
    Field("sip_2xx_conversations", "bigint", "", "Outbound calls with a SIP code 200 to 299."),
    Field("sip_4xx_conversations", "bigint", "", "Outbound calls with a SIP code 400 to 499."),
    Field("sip_5xx_conversations", "bigint", "", "Outbound calls with a SIP code 500 to 599."),
    Field("sip_6xx_conversations", "bigint", "", "Outbound calls with a SIP code 600 to 699."),
    Field("timed_conversations", "bigint", "", "Finished conversations with a known duration."),
    Field(
        "handle_time_seconds_sum",
        "double",
        "s",
        "Sum of the handle times of the timed conversations.",
    ),
    Field(
        "scored_conversations_1_5", "bigint", "", "Conversations with a PolyScore on the 1-5 scale."
    ),
    Field("poly_score_1_5_sum", "double", "1-5", "Sum of the PolyScores on the 1-5 scale."),
    Field(
        "scored_conversations_0_10",
        "bigint",
        "",
        "Conversations with a PolyScore on the older 0-10 scale.",
    ),
    Field("poly_score_0_10_sum", "double", "0-10", "Sum of the PolyScores on the 0-10 scale."),
    Field(
        "high_score_conversations",
        "bigint",
        "",
        "Conversations with a PolyScore of 5 on the 1-5 scale.",
    ),
    Field(
        "medium_score_conversations",
        "bigint",
        "",
        "Conversations with a PolyScore of 3 to below 5 on the 1-5 scale.",
    ),
    Field(
        "low_score_conversations",
        "bigint",
        "",
        "Conversations with a PolyScore below 3 on the 1-5 scale.",
    ),
    Field("retrievals", "bigint", "", "Retrievals of the topic."),
    # rates and means of a group
    Field(
        "containment_rate",
        "double",
        "ratio",
        "Containment rate: contained ÷ finished conversations.",
    ),
    Field(
        "containment_rate_excl_abandoned",
        "double",
        "ratio",
        "Stricter containment rate: contained_excl_abandoned ÷ finished conversations.",
    ),
    Field("handoff_rate", "double", "ratio", "Handoff rate: handed_off ÷ finished conversations."),
    Field("answer_rate", "double", "ratio", "Answer rate: answered ÷ finished conversations."),
    Field("connection_rate", "double", "ratio", "Connected ÷ attempted outbound calls."),
    Field("human_rate", "double", "ratio", "Calls answered by a human ÷ connected ones."),
    Field("completion_rate", "double", "ratio", "Completed ÷ connected outbound calls."),
    Field("handle_time_seconds_mean", "double", "s", "Mean handle time of a conversation."),
    Field("handle_time_seconds_p50", "double", "s", "Median handle time."),
    Field("handle_time_seconds_p95", "double", "s", "95th percentile of the handle times."),
    Field("poly_score_1_5_mean", "double", "1-5", "Mean PolyScore on the 1-5 scale."),
    Field("poly_score_0_10_mean", "double", "0-10", "Mean PolyScore on the older 0-10 scale."),
    Field(
        "conversations_change",
        "bigint",
        "",
        "Change from the day before; a day without any counts as 0.",
    ),
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
)

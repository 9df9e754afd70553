//! What kind of message bytes are, without parsing them: for counters.

/// The kinds of session messages, as the protocol numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Hello,
    Join,
    JoinAnswer,
    Ping,
    Pong,
    Part,
    NeighborList,
    Claim,
    UptimeContest,
    Upstream,
    Downstream,
    CarryRequest,
    CarryResponse,
    Knock,
    SendTo,
    /// Of a newer version, or no message at all.
    Unknown,
}

impl Kind {
    pub const ALL: [Self; 16] = [
        Self::Hello,
        Self::Join,
        Self::JoinAnswer,
        Self::Ping,
        Self::Pong,
        Self::Part,
        Self::NeighborList,
        Self::Claim,
        Self::UptimeContest,
        Self::Upstream,
        Self::Downstream,
        Self::CarryRequest,
        Self::CarryResponse,
        Self::Knock,
        Self::SendTo,
        Self::Unknown,
    ];

    /// By the first byte: field number and wire type of the message's only field (protobuf encoding, "tag").
    pub fn of(message: &[u8]) -> Self {
        const LENGTH_DELIMITED: u8 = 2;
        let Some(&tag) = message.first() else { return Self::Unknown };
        let number = usize::from(tag >> 3);
        let known = tag & 7 == LENGTH_DELIMITED && (1..Self::ALL.len()).contains(&number);
        if known { Self::ALL[number - 1] } else { Self::Unknown }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Join => "join",
            Self::JoinAnswer => "join_answer",
            Self::Ping => "ping",
            Self::Pong => "pong",
            Self::Part => "part",
            Self::NeighborList => "neighbor_list",
            Self::Claim => "claim",
            Self::UptimeContest => "uptime_contest",
            Self::Upstream => "upstream",
            Self::Downstream => "downstream",
            Self::CarryRequest => "carry_request",
            Self::CarryResponse => "carry_response",
            Self::Knock => "knock",
            Self::SendTo => "send_to",
            Self::Unknown => "unknown",
        }
    }
}

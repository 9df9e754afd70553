//! Traffic classes: who goes first when a link is short (proto: `muster.control.v1.TrafficClass`).

/// In falling order of urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TrafficClass {
    Control = 1,
    Interactive = 2,
    Task = 3,
    Telemetry = 4,
    Bulk = 5,
}

impl TrafficClass {
    pub const ALL: [Self; 5] = [Self::Control, Self::Interactive, Self::Task, Self::Telemetry, Self::Bulk];

    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.number() == number)
    }

    /// As in the protocol.
    pub fn number(self) -> u8 {
        self as u8
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Interactive => "interactive",
            Self::Task => "task",
            Self::Telemetry => "telemetry",
            Self::Bulk => "bulk",
        }
    }

    /// QUIC sends streams of higher priority first.
    pub(crate) fn priority(self) -> i32 {
        -i32::from(self.number())
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.number()) - 1
    }
}

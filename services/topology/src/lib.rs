//! The topology service: cells, presence, control channel, tasks, events.

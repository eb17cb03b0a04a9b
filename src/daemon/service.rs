//! What the service manager is told (`sd_notify`): nothing where there is none.

use std::time::Duration;

use sd_notify::NotifyState;

fn tell(states: &[NotifyState<'_>]) {
    // Without NOTIFY_SOCKET there is nobody to tell.
    let _ = sd_notify::notify(states);
}

/// The daemon is up: its page answers, and tells whether it takes on work.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// One line for `systemctl status`.
pub(super) fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// It goes down.
pub(super) fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// The scheduler goes round.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often the manager wants to hear that, if it does: half of its patience.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|patience| patience / 2)
}

//! Progress on the terminal, fed from counters.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use strongroom_engine::pool::Meter;

use crate::output::Output;

/// How often it is drawn.
const INTERVAL: Duration = Duration::from_millis(120);

/// Runs `work` while `draw` is called several times a second, if a person is watching.
fn watch<T>(
    out: Output,
    bar: impl FnOnce() -> ProgressBar,
    draw: impl Fn(&ProgressBar) + Sync,
    work: impl FnOnce() -> T,
) -> T {
    if !out.shows_progress() {
        return work();
    }
    let bar = bar();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let drawer = scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                draw(&bar);
                std::thread::park_timeout(INTERVAL);
            }
            bar.finish_and_clear();
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Release);
        drawer.thread().unpark();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub(crate) fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// Shows how far a meter of bytes has come.
pub(crate) fn meter<T>(out: Output, what: &str, meter: &Meter, work: impl FnOnce() -> T) -> T {
    let bar = || {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        bar.set_style(style(
            "{msg} [{bar:30}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta}",
        ));
        bar.set_message(what.to_owned());
        bar
    };
    let draw = |bar: &ProgressBar| {
        let (done, total) = meter.read();
        bar.set_length(total);
        bar.set_position(done);
    };
    watch(out, bar, draw, work)
}

/// Shows a line of text that `text` makes anew each time.
pub(crate) fn status<T>(
    out: Output,
    text: impl Fn() -> String + Sync,
    work: impl FnOnce() -> T,
) -> T {
    let bar = || {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style("{spinner} {elapsed} {wide_msg}"));
        bar
    };
    let draw = |bar: &ProgressBar| {
        bar.set_message(text());
        bar.tick();
    };
    watch(out, bar, draw, work)
}

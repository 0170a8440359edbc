//! The bounded queue of what the workers do.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Jobs in order, a bounded number of new ones, and an account of the streams that are under way:
/// each comes back to the front of the queue after every block, so the queue is not done before
/// they are.
#[derive(Debug)]
pub(super) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    changed: Condvar,
    room: Condvar,
    bound: usize,
}

#[derive(Debug)]
struct Inner<T> {
    jobs: VecDeque<T>,
    streams: usize,
    closed: bool,
    stopped: bool,
}

impl<T> Queue<T> {
    pub(super) fn new(bound: usize) -> Self {
        let inner = Inner { jobs: VecDeque::new(), streams: 0, closed: false, stopped: false };
        Self { inner: Mutex::new(inner), changed: Condvar::new(), room: Condvar::new(), bound }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a job; waits while the queue is full. False when all was stopped.
    pub(super) fn push(&self, job: T) -> bool {
        let mut inner = self.lock();
        while inner.jobs.len() >= self.bound && !inner.stopped {
            inner = self.room.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        if inner.stopped {
            return false;
        }
        inner.jobs.push_back(job);
        drop(inner);
        self.changed.notify_one();
        true
    }

    /// Appends the first job of a stream.
    pub(super) fn push_stream(&self, job: T) -> bool {
        self.lock().streams += 1;
        let pushed = self.push(job);
        if !pushed {
            self.end_stream();
        }
        pushed
    }

    /// Puts the next job of a stream to the front, whatever the bound.
    pub(super) fn push_front(&self, job: T) {
        let mut inner = self.lock();
        if !inner.stopped {
            inner.jobs.push_front(job);
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// A stream has come to its end.
    pub(super) fn end_stream(&self) {
        let mut inner = self.lock();
        inner.streams -= 1;
        drop(inner);
        self.changed.notify_all();
    }

    /// Takes a job; waits for one. None when there will be no more.
    pub(super) fn pop(&self) -> Option<T> {
        let mut inner = self.lock();
        loop {
            if inner.stopped {
                return None;
            }
            if let Some(job) = inner.jobs.pop_front() {
                drop(inner);
                self.room.notify_one();
                return Some(job);
            }
            if inner.closed && inner.streams == 0 {
                return None;
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// No new jobs will come.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// All jobs are dropped and nobody waits any more.
    pub(super) fn stop(&self) {
        let mut inner = self.lock();
        inner.stopped = true;
        let jobs = std::mem::take(&mut inner.jobs);
        drop(inner);
        self.changed.notify_all();
        self.room.notify_all();
        drop(jobs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_keeps_the_queue_open() {
        let queue = Queue::new(4);
        assert!(queue.push_stream(1));
        queue.close();
        assert_eq!(queue.pop(), Some(1));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.pop());
            queue.push_front(2);
            assert_eq!(waiting.join().ok().flatten(), Some(2));
            let waiting = scope.spawn(|| queue.pop());
            queue.end_stream();
            assert_eq!(waiting.join().ok().flatten(), None);
        });
    }

    #[test]
    fn stopping_frees_those_who_wait() {
        let queue = Queue::new(1);
        assert!(queue.push(1));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.push(2));
            queue.stop();
            assert_eq!(waiting.join().ok(), Some(false));
        });
        assert_eq!(queue.pop(), None);
    }
}

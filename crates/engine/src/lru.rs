//! A bounded store of what was used last.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Keeps values up to a total weight; what was not used for longest goes first.
#[derive(Debug)]
pub struct Lru<K, V> {
    kept: HashMap<K, Slot<V>>,
    /// By when it was used last.
    order: BTreeMap<u64, K>,
    tick: u64,
    weight: usize,
    capacity: usize,
}

#[derive(Debug)]
struct Slot<V> {
    value: V,
    weight: usize,
    used: u64,
}

impl<K: Hash + Eq + Clone, V: Clone> Lru<K, V> {
    /// An empty one, for so much weight.
    pub fn new(capacity: usize) -> Self {
        Self { kept: HashMap::new(), order: BTreeMap::new(), tick: 0, weight: 0, capacity }
    }

    /// The value, which counts as used now.
    pub fn get(&mut self, key: &K) -> Option<V> {
        let slot = self.kept.get_mut(key)?;
        self.tick += 1;
        let key = self.order.remove(&slot.used)?;
        self.order.insert(self.tick, key);
        slot.used = self.tick;
        Some(slot.value.clone())
    }

    /// Keeps a value in place of what had its key. What weighs more than half of the capacity is not kept.
    pub fn insert(&mut self, key: K, value: V, weight: usize) {
        self.remove(&key);
        if weight > self.capacity / 2 {
            return;
        }
        self.tick += 1;
        self.order.insert(self.tick, key.clone());
        self.kept.insert(key, Slot { value, weight, used: self.tick });
        self.weight += weight;
        while self.weight > self.capacity {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            if let Some(slot) = self.kept.remove(&oldest) {
                self.weight -= slot.weight;
            }
        }
    }

    /// What all values weigh together.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Keeps it no longer.
    pub fn remove(&mut self, key: &K) {
        if let Some(slot) = self.kept.remove(key) {
            self.order.remove(&slot.used);
            self.weight -= slot.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_stays() {
        let mut lru = Lru::new(10);
        for key in 0..5 {
            lru.insert(key, key * 10, 2);
        }
        assert_eq!(lru.get(&0), Some(0));
        lru.insert(5, 50, 3);
        assert_eq!((lru.get(&0), lru.get(&1), lru.get(&2)), (Some(0), None, None));
        assert_eq!((lru.get(&3), lru.get(&5)), (Some(30), Some(50)));
        lru.insert(6, 60, 6);
        assert!(lru.get(&6).is_none(), "it would push out most of the others");
        lru.insert(5, 51, 5);
        assert_eq!(lru.get(&5), Some(51));
        assert!(lru.weight <= 10);
        assert_eq!(lru.kept.len(), lru.order.len());
    }
}

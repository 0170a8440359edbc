//! Packs written and read back, with disks missing or failing.

use proptest::prelude::*;

use super::*;
use crate::error::{Error, Result};

const LAYOUTS: [(u8, u8); 7] = [(1, 0), (1, 1), (1, 2), (2, 1), (4, 2), (3, 3), (8, 3)];

fn lengths(shape: Shape) -> Vec<usize> {
    let (unit, stripe) = (shape.unit() as usize, shape.unit() as usize * shape.data());
    let mut all = vec![0, 1, unit - 1, unit, unit + 1, 3 * stripe + unit / 3];
    all.extend([stripe - 1, stripe, stripe + 1, 9 * stripe]);
    all
}

#[test]
fn what_is_written_is_read_back_in_every_layout_and_length() {
    for (data, parity) in LAYOUTS {
        for len in lengths(shape(data, parity)) {
            let bench = Bench::new(shape(data, parity), len);
            let set = bench.set(0);
            bench.check(&set, 0, len);
            bench.check(&set, len / 3, len / 2);
            bench.check(&set, len, 0);
            let mut buf = AlignedBuf::default();
            let report = set.read_verified(0, len, &mut buf).unwrap();
            assert!(buf[report.range] == bench.bytes && report.bad.is_empty());
            assert!(matches!(set.read(1, len, &mut buf), Err(Error::Damaged { .. })));
            assert!(matches!(set.read(u64::MAX, 1, &mut buf), Err(Error::Damaged { .. })));
            let report = bench.scrub(true);
            assert!(report.is_clean() && report.is_whole());
            assert_eq!(set.header().unwrap(), header(bench.shape));
            let found = ShardSet::discover(&as_dyn(&bench.disks), POOL, PACK).unwrap();
            assert_eq!(found.geometry(), bench.geometry());
        }
    }
}

#[test]
fn megabytes_in_the_usual_units_survive_any_losses() {
    for (data, parity) in [(1, 1), (2, 1), (4, 2)] {
        let bench = Bench::new(Shape::new(data, parity).unwrap(), (9 << 20) + 12_345);
        let shards = bench.shape.shards();
        for lost in (0..1 << shards).filter(|lost: &u32| lost.count_ones() == u32::from(parity)) {
            let set = bench.set(lost);
            bench.check(&set, 0, bench.bytes.len());
            bench.check(&set, 1_234_567, 3_000_000);
            bench.check(&set, 5_000_000, 300_000);
        }
        assert!(bench.scrub(false).is_clean());
    }
}

#[test]
fn any_m_shards_may_be_lost() {
    for (data, parity) in LAYOUTS {
        let shape = shape(data, parity);
        let len = 3 * shape.data() * 4096 + 4096 + 100;
        let bench = Bench::new(shape, len);
        for lost in 0..1u32 << shape.shards() {
            if lost.count_ones() > u32::from(parity) {
                continue;
            }
            let set = bench.set(lost);
            bench.check(&set, 0, len);
            bench.check(&set, 4_000, 5_000.min(len - 4_000));
            let mut buf = AlignedBuf::default();
            let report = set.read_verified(100, len - 100, &mut buf).unwrap();
            assert!(buf[report.range] == bench.bytes[100..]);
            assert_eq!(report.lost.len(), lost.count_ones() as usize);
        }
    }
}

#[test]
fn with_too_many_lost_only_what_lay_there_is_lost() {
    let bench = Bench::new(shape(4, 2), 40_000);
    // Data shards 0 and 1 and one of parity.
    let set = bench.set(0b01_0011);
    let mut buf = AlignedBuf::default();
    for unit in 0..bench.bytes.len() / 4096 {
        let (start, len) = (unit * 4096 + 10, 4_000);
        if unit % 4 >= 2 {
            bench.check(&set, start, len);
            let report = set.read_verified(start as u64, len, &mut buf).unwrap();
            assert!(buf[report.range] == bench.bytes[start..start + len]);
        } else {
            let error = set.read(start as u64, len, &mut buf).unwrap_err();
            assert!(matches!(error, Error::TooFewDisks { missing: 3, total: 6, tolerated: 2 }));
            let error = set.read_verified(start as u64, len, &mut buf).unwrap_err();
            assert!(matches!(error, Error::TooFewDisks { missing: 3, .. }));
        }
    }
    let all = scrub_pack(
        &bench.without(0b01_0011),
        POOL,
        PACK,
        None,
        true,
        &mut ScrubBuffers::default(),
        &mut |_| Ok(()),
    )
    .unwrap();
    // The disks may come back.
    assert_eq!(all.unreadable, [0..8192, 16_384..24_576, 32_768..40_000]);
    assert!(all.unrecoverable.is_empty() && !all.is_whole());
    assert!(bench.set(0b111_111).header().is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_range_of_any_pack_with_any_losses(
        data in 1u8..7, parity in 0u8..4, len in 0usize..150_000,
        ranges in prop::collection::vec((any::<prop::sample::Index>(), 0usize..60_000), 8),
        lost in any::<prop::sample::Index>(),
    ) {
        let bench = Bench::new(shape(data, parity), len);
        let losses: Vec<u32> = (0..1u32 << bench.shape.shards())
            .filter(|lost| lost.count_ones() <= u32::from(parity)).collect();
        let set = bench.set(*lost.get(&losses));
        for (start, count) in ranges {
            let start = start.index(len + 1);
            bench.check(&set, start, count.min(len - start));
        }
    }

    #[test]
    fn what_is_damaged_anywhere_is_mended(
        data in 1u8..5, parity in 1u8..4, len in 1usize..60_000,
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1u8..), 1..12),
        hurt in any::<prop::sample::Index>(),
    ) {
        // Anything may happen to as many shards as there is parity for.
        let bench = Bench::new(shape(data, parity), len);
        let before = bench.content();
        let shards: Vec<usize> =
            (0..usize::from(parity)).map(|i| (hurt.index(32) + i) % bench.shape.shards()).collect();
        for (shard, place, mask) in hits {
            let shard = *shard.get(&shards);
            bench.disk(shard).edit(&shard_path(PACK, shard), |bytes| {
                let place = place.index(bytes.len());
                bytes[place] ^= mask;
            });
        }
        let mut buf = AlignedBuf::default();
        let report = bench.set(0).read_verified(0, len, &mut buf).unwrap();
        prop_assert!(buf[report.range] == bench.bytes);
        prop_assert!(bench.scrub(true).is_whole());
        prop_assert_eq!(bench.content(), before);
    }
}

#[test]
fn a_disk_that_fails_while_writing_is_left_out() {
    let shape = shape(2, 1);
    let bytes = noise(40_000, 5);
    for budget in 0..20 {
        for (failing, at_once) in [(1, false), (2, false), (1, true), (2, true)] {
            let disks: Vec<MemDisk> = (0..3).map(|_| MemDisk::default()).collect();
            for disk in &disks[..failing] {
                disk.0.lock().unwrap().budget = Some(budget);
            }
            let dyn_disks = as_dyn(&disks);
            let result = ShardWriter::create(&dyn_disks, header(shape), Lanes::new(at_once))
                .and_then(|mut writer| match writer.append(&bytes) {
                    Ok(()) => writer.finish(),
                    Err(error) => {
                        writer.abandon();
                        Err(error)
                    }
                })
                .and_then(FinishedPack::publish);
            // Create, header, units, trailer, sync, rename.
            let fails = budget < 6;
            match result {
                Ok(sealed) => {
                    assert!(!fails || failing == 1);
                    assert_eq!(sealed.failed.len(), usize::from(fails));
                    assert_eq!(sealed.disks.len(), 3 - usize::from(fails));
                    assert_eq!(sealed.directories.len(), sealed.disks.len());
                    let bench = Bench { disks: disks.clone(), shape, bytes: bytes.clone() };
                    bench.check(&bench.set(0), 0, bytes.len());
                    disks[0].0.lock().unwrap().budget = None;
                    assert_eq!(bench.scrub(true).is_clean(), !fails);
                    assert!(bench.scrub(false).is_clean());
                }
                Err(error) => {
                    assert!(fails && failing == 2);
                    assert!(matches!(error, Error::Io { source, .. }
                        if source.kind() == io::ErrorKind::StorageFull));
                    assert!(disks.iter().all(|disk| disk.content().is_empty()));
                }
            }
        }
    }
}

#[test]
fn numbers_are_never_used_twice() {
    let bench = Bench::new(shape(2, 1), 10_000);
    let disks = as_dyn(&bench.disks);
    let before = bench.content();
    let error = ShardWriter::create(&disks, header(bench.shape), Lanes::default()).unwrap_err();
    assert!(matches!(error, Error::Io { source, .. }
        if source.kind() == io::ErrorKind::AlreadyExists));
    assert!(bench.content() == before);
    let too_few: Vec<_> = disks[..2].to_vec();
    assert!(ShardWriter::create(&too_few, header(bench.shape), Lanes::default()).is_err());
    let absent = [disks[0].clone(), None, None];
    let error = ShardWriter::create(&absent, header(bench.shape), Lanes::default()).unwrap_err();
    assert!(matches!(error, Error::Io { .. } | Error::TooFewDisks { .. }));
}

#[test]
fn packs_are_listed_with_what_is_left_over() {
    let bench = Bench::new(shape(2, 1), 10_000);
    let disks = as_dyn(&bench.disks);
    let mut open = header(bench.shape);
    open.pack = PackId(9);
    let mut writer = ShardWriter::create(&disks, open, Lanes::default()).unwrap();
    writer.append(&[1; 100]).unwrap();
    drop(writer);
    for name in ["packs/09/000000000009.03.opens", "packs/08/000000000009.00", "packs/09/9.00"] {
        bench.disks[0].create(name, Caching::Cached).unwrap();
    }
    for shard in 0..3 {
        let disk = bench.disk(shard);
        let listed = list_packs(disk).unwrap();
        let len = bench.geometry().file_len(shard);
        let sealed = FoundShard { pack: PACK, shard, len, stage: Stage::Sealed };
        assert_eq!(listed[1], sealed);
        assert_eq!((listed.len(), listed[0].pack, listed[0].stage), (2, PackId(9), Stage::Open));
        assert_eq!(read_header(disk, &sealed).unwrap(), header(bench.shape));
        assert_eq!(read_header(disk, &listed[0]).unwrap(), open);
    }
    remove_pack(&disks, PackId(9)).unwrap();
    remove_pack(&disks, PACK).unwrap();
    remove_pack(&disks, PACK).unwrap();
    assert!(bench.disks.iter().all(|disk| list_packs(disk).unwrap().is_empty()));
    assert!(summarize(&disks, POOL, PACK).is_err());
}

#[test]
fn buffers_and_pieces_of_any_size_make_the_same_pack() {
    let shape = shape(3, 1);
    let expected = Bench::new(shape, 50_000);
    let disks: Vec<MemDisk> = (0..4).map(|_| MemDisk::default()).collect();
    // Buffers that were used for something else, wider and full of other bytes.
    let wide = Bench::new(Shape::new(6, 2).unwrap(), 0);
    wide.disks.iter().for_each(|disk| disk.0.lock().unwrap().files.clear());
    let mut writer =
        ShardWriter::create(&as_dyn(&wide.disks), header(wide.shape), Lanes::new(true)).unwrap();
    writer.append(&noise(20 << 20, 3)).unwrap();
    let lanes = writer.finish().unwrap().take_lanes();
    let mut writer = ShardWriter::create(&as_dyn(&disks), header(shape), lanes).unwrap();
    let mut rest = &expected.bytes[..];
    while !rest.is_empty() {
        let spare = writer.spare();
        let count = spare.len().min(rest.len()).min(777);
        spare[..count].copy_from_slice(&rest[..count]);
        writer.commit(count).unwrap();
        rest = &rest[count..];
    }
    writer.finish().unwrap().publish().unwrap();
    assert!(disks.iter().map(MemDisk::content).collect::<Vec<_>>() == expected.content());
}

#[test]
fn a_pack_has_a_longest_length() {
    let disks = vec![MemDisk::default()];
    let shape = Shape::new(1, 0).unwrap();
    let mut writer = ShardWriter::create(&as_dyn(&disks), header(shape), Lanes::default()).unwrap();
    let piece = vec![7; 1 << 20];
    let result: Result<()> = (0..257).try_for_each(|_| writer.append(&piece));
    assert!(matches!(result, Err(Error::Invalid(_))));
    assert_eq!(writer.len(), MAX_PACK);
    writer.abandon();
    assert!(disks[0].content().is_empty());
    assert!(Geometry::new(shape, MAX_PACK + 1).is_err());
    for (data, parity, unit) in
        [(0, 1, 4096), (30, 3, 4096), (1, 0, 0), (1, 0, 5000), (1, 0, 2 << 20)]
    {
        assert!(Shape::with_unit(data, parity, unit).is_err());
    }
}

/// Frozen: version 1 of the format, written down once.
#[test]
fn the_bytes_of_version_1_do_not_change() {
    let bench = Bench::new(shape(2, 2), 20_000);
    let all: Vec<u8> = (0..4)
        .flat_map(|shard| bench.disk(shard).content()[&shard_path(PACK, shard)].clone())
        .collect();
    assert_eq!(shard_path(PACK, 3), "packs/07/00abcdef0107.03");
    assert_eq!(
        blake3::hash(&all).to_hex().as_str(),
        "385a9679b38ef0dc15a5c3d89700d9d6a23a35eaf12de3e2f583ca5df575a590"
    );
}

#[test]
fn writers_and_sets_move_between_threads() {
    fn moves<T: Send>() {}
    fn shared<T: Send + Sync>() {}
    moves::<ShardWriter>();
    moves::<FinishedPack>();
    shared::<ShardSet>();
}

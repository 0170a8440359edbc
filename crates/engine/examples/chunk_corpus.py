#!/usr/bin/env python3
"""Makes backups that follow each other, for the example `chunk_sizes`.

chunk_corpus.py KIND OUT TREE    KIND is tree, image or database; TREE a folder with sources

tree      OUT/tree{1,2,3}: TREE, then twice with 3 % of its files edited, 1 % new, 1 % gone;
          OUT/tree{1,2,3}.tar: the same as streams
image     OUT/image{1,2,3}.ext4: a filesystem of 512 MiB with TREE in it, then twice with files
          rewritten, removed and added in place (needs mke2fs and debugfs)
database  OUT/db{1,2,3}.sqlite: a database with an index, then twice with 1 % of its rows updated,
          nine in ten of them among the newest tenth, 0.2 % deleted and 3 % inserted;
          OUT/db{1,2,3}.sql: the same as text
The same input gives the same output.
"""
import os
import pathlib
import random
import shutil
import sqlite3
import subprocess
import sys
import tarfile


def files(tree):
    return sorted(p for p in tree.rglob("*") if p.is_file() and not p.is_symlink())


def edited(data, rng):
    """A few insertions, replacements and deletions, as an editor makes them."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(data) + 1)
        new = bytes(rng.choices(b"abcdefghij klmnop(){};=\n", k=rng.randint(1, 200)))
        data[at:at + rng.choice((0, 0, rng.randint(1, 200)))] = new
    return bytes(data)


def tree(out, source):
    rng = random.Random(1)
    shutil.copytree(source, out / "tree1", symlinks=True)
    for version in (2, 3):
        here = out / f"tree{version}"
        shutil.copytree(out / f"tree{version - 1}", here, symlinks=True)
        all_files = files(here)
        for path in all_files:
            dice = rng.random()
            if dice < 0.03:
                path.chmod(0o644)
                path.write_bytes(edited(path.read_bytes(), rng))
            elif dice < 0.04:
                path.unlink()
            elif dice < 0.05:
                other = rng.choice(all_files)
                if other.exists():
                    path.with_name(f"new{version}-{path.name}").write_bytes(
                        edited(other.read_bytes(), rng))
    for version in (1, 2, 3):
        with tarfile.open(out / f"tree{version}.tar", "w", format=tarfile.GNU_FORMAT) as tar:
            for path in files(out / f"tree{version}"):
                info = tar.gettarinfo(path, str(path.relative_to(out / f"tree{version}")))
                info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
                with path.open("rb") as data:
                    tar.addfile(info, data)


def image(out, source):
    rng = random.Random(2)
    first = out / "image1.ext4"
    with first.open("wb") as disk:
        disk.truncate(512 << 20)
    subprocess.run(["mke2fs", "-q", "-i", "8192", "-t", "ext4", "-d", source, first], check=True)
    names = [path.relative_to(source) for path in files(source)]
    for version in (2, 3):
        here = out / f"image{version}.ext4"
        subprocess.run(["cp", "--sparse=always", out / f"image{version - 1}.ext4", here], check=True)
        scratch = out / "scratch"
        scratch.mkdir()
        commands = []
        for nth, name in enumerate(rng.sample(names, len(names) // 25)):
            commands.append(f'rm "/{name}"')
            if nth % 5:
                copy = scratch / str(nth)
                copy.write_bytes(edited((source / name).read_bytes(), rng))
                commands.append(f'write {copy} "/{name}"')
        script = scratch / "commands"
        script.write_text("\n".join(commands) + "\n")
        subprocess.run(["debugfs", "-w", "-f", script, here], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shutil.rmtree(scratch)


def database(out, _source):
    rng = random.Random(3)
    names = [f"{a}{b}{c}" for a in ("an", "be", "ca", "do") for b in ("ra", "lu", "mi", "ko", "ne")
             for c in ("s", "t", "lla", "rd", "x")]

    def row(key):
        notes = " ".join(rng.choices(names, k=rng.randint(2, 25)))
        return (key, rng.choice(names), f"{rng.choice(names)}@{rng.choice(names)}.example",
                rng.randrange(10**9), rng.randbytes(16).hex(), notes)

    work = out / "work.sqlite"
    db = sqlite3.connect(work)
    db.execute("CREATE TABLE person(id INTEGER PRIMARY KEY, name, mail, amount, token, notes)")
    db.execute("CREATE INDEX by_mail ON person(mail)")
    count = 600_000
    db.executemany("INSERT INTO person VALUES(?,?,?,?,?,?)", map(row, range(count)))
    db.commit()
    for version in (1, 2, 3):
        if version > 1:
            recent = rng.sample(range(count - count // 10, count), count * 9 // 1000)
            for key in recent + rng.sample(range(count), count // 1000):
                new = row(key)
                db.execute("UPDATE person SET amount=?, notes=? WHERE id=?", (new[3], new[5], key))
            for key in rng.sample(range(count), count // 500):
                db.execute("DELETE FROM person WHERE id=?", (key,))
            more = count * 3 // 100
            db.executemany("INSERT INTO person VALUES(?,?,?,?,?,?)",
                           map(row, range(count, count + more)))
            count += more
            db.commit()
        shutil.copy(work, out / f"db{version}.sqlite")
        with (out / f"db{version}.sql").open("w") as dump:
            dump.writelines(f"{line}\n" for line in db.iterdump())
    db.close()
    work.unlink()


def main():
    if len(sys.argv) != 4 or sys.argv[1] not in ("tree", "image", "database"):
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    {"tree": tree, "image": image, "database": database}[sys.argv[1]](
        out, pathlib.Path(sys.argv[3]))


if __name__ == "__main__":
    os.umask(0o022)
    main()

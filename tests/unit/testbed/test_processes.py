"""Reading what /proc says."""

from __future__ import annotations

import pytest

from ci.testbed import processes

_TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0 20 4 30 10 -1
   2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0 0 10 0
"""


@pytest.mark.parametrize("name", ["etcd", "a b", "sh) R 1 (x", ") S 99"])
def test_stat_is_read_past_any_process_name(name: str) -> None:
    numbers = " ".join(str(number) for number in range(4, 53))
    assert processes.stat_fields(f"42 ({name}) S {numbers}\n") == ("S", 22)


@pytest.mark.parametrize(("port", "inodes"), [(0x1F90, {"111"}), (0x1F91, {"333"}), (0xC350, set())])
def test_only_listening_sockets_of_the_port_count(port: int, inodes: set[str]) -> None:
    assert processes.listening_inodes(_TABLE, port) == inodes

"""Git: brings snapshots into a repository as one commit, and pushes it.

Nothing of a repository is run by reading it: no hooks, filters, helpers or programs that its own files name.
"""

from __future__ import annotations

from renderer.gitrepo.provenance import commit_that_holds
from renderer.gitrepo.repository import Committed, Repository, Settings
from renderer.gitrepo.revision import files_at

__all__ = ["Committed", "Repository", "Settings", "commit_that_holds", "files_at"]

"""The store: one SQLite file per study folder, one writer; a trial is in it completely or not at all."""

from __future__ import annotations

from fanin.store.files import FILE as FILE
from fanin.store.files import LOCK as LOCK
from fanin.store.files import file_system as file_system
from fanin.store.schema import SCHEMA_VERSION as SCHEMA_VERSION
from fanin.store.store import Columns as Columns
from fanin.store.store import Store as Store
from fanin.store.store import StoredStudy as StoredStudy

package state

import (
	"errors"
	"fmt"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// explain says what an error of the database means and what to do about it.
func (e sqliteEngine) explain(err error) error {
	failure, ok := errors.AsType[*sqlite.Error](err)
	if !ok || IsFinal(err) {
		return err
	}
	switch failure.Code() & 0xff { // The rest of the code is detail.
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return final{fmt.Errorf("the state book %s is damaged: move it away together with its -wal and -shm files, then put a backup in its place, "+
			"or restart and seed the documents into a new one: %w", e.path, err)}
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("there is no space left for the state book %s, and the change was not made: %w", e.path, err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN:
		return fmt.Errorf("the state book %s cannot be written: this process needs to write the file and its directory: %w", e.path, err)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fmt.Errorf("another process keeps the state book %s locked: %w", e.path, err)
	}
	return fmt.Errorf("the state book %s: %w", e.path, err)
}

// locked says that another process held what was asked for, and may let go of it.
func locked(err error) bool {
	failure, ok := errors.AsType[*sqlite.Error](err)
	return ok && (failure.Code()&0xff == sqlite3.SQLITE_BUSY || failure.Code()&0xff == sqlite3.SQLITE_LOCKED)
}

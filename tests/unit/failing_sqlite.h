/* failing_sqlite.h: a disk and an allocator for SQLite of which one call fails: shim_install and memory_install put them under
 * every connection that is opened afterwards, `shim` and `memory` say which call it is. */
#ifndef STEERD_TESTS_UNIT_FAILING_SQLITE_H
#define STEERD_TESTS_UNIT_FAILING_SQLITE_H

#include <sqlite3.h>
#include <stdbool.h>

/* A layer over SQLite's own file system. `countdown` calls that change something succeed, the next fails with `code`;
 * with `forever` all later ones too. */
static struct {
  sqlite3_vfs vfs, *real;
  sqlite3_io_methods methods;
  int countdown, code; /* code 0: off */
  bool forever, hit;
} shim;

struct shim_file {
  sqlite3_file base;
  sqlite3_file *real;
};

static inline bool shim_fails(void) {
  if (!shim.code || shim.countdown < 0) return false;
  if (shim.countdown > 0) {
    shim.countdown--;
    return false;
  }
  if (!shim.forever) shim.countdown = -1;
  return shim.hit = true;
}

#define REAL(file) (((struct shim_file *)(file))->real)
#define PASS(name, parameters, arguments)                                                                      \
  static inline int shim_##name parameters { return REAL(f)->pMethods->x##name arguments; }
#define FAIL(name, parameters, arguments)                                                                      \
  static inline int shim_##name parameters { return shim_fails() ? shim.code : REAL(f)->pMethods->x##name arguments; }

PASS(Close, (sqlite3_file *f), (REAL(f)))
PASS(Read, (sqlite3_file *f, void *to, int n, sqlite3_int64 at), (REAL(f), to, n, at))
FAIL(Write, (sqlite3_file *f, const void *from, int n, sqlite3_int64 at), (REAL(f), from, n, at))
FAIL(Truncate, (sqlite3_file *f, sqlite3_int64 size), (REAL(f), size))
FAIL(Sync, (sqlite3_file *f, int flags), (REAL(f), flags))
PASS(FileSize, (sqlite3_file *f, sqlite3_int64 *size), (REAL(f), size))
PASS(Lock, (sqlite3_file *f, int level), (REAL(f), level))
PASS(Unlock, (sqlite3_file *f, int level), (REAL(f), level))
PASS(CheckReservedLock, (sqlite3_file *f, int *out), (REAL(f), out))
PASS(FileControl, (sqlite3_file *f, int op, void *arg), (REAL(f), op, arg))
PASS(SectorSize, (sqlite3_file *f), (REAL(f)))
PASS(DeviceCharacteristics, (sqlite3_file *f), (REAL(f)))
FAIL(ShmMap, (sqlite3_file *f, int page, int size, int extend, void volatile **out), (REAL(f), page, size, extend, out))
PASS(ShmLock, (sqlite3_file *f, int at, int n, int flags), (REAL(f), at, n, flags))
PASS(ShmUnmap, (sqlite3_file *f, int forget), (REAL(f), forget))
static inline void shim_ShmBarrier(sqlite3_file *f) { REAL(f)->pMethods->xShmBarrier(REAL(f)); }

static inline int shim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out) {
  (void)vfs;
  struct shim_file *mine = (struct shim_file *)file;
  mine->base.pMethods = NULL;
  if (shim_fails()) return SQLITE_CANTOPEN;
  mine->real = (sqlite3_file *)(mine + 1);
  int rc = shim.real->xOpen(shim.real, name, mine->real, flags, out);
  if (rc == SQLITE_OK) mine->base.pMethods = &shim.methods;
  return rc;
}

static inline int shim_delete(sqlite3_vfs *vfs, const char *name, int sync) {
  (void)vfs;
  return shim_fails() ? SQLITE_IOERR_DELETE : shim.real->xDelete(shim.real, name, sync);
}

static inline void shim_install(void) {
  shim.real = sqlite3_vfs_find(NULL);
  shim.vfs = *shim.real;
  shim.vfs.zName = "shim";
  shim.vfs.szOsFile = (int)sizeof(struct shim_file) + shim.real->szOsFile;
  shim.vfs.xOpen = shim_open;
  shim.vfs.xDelete = shim_delete;
  shim.methods = (sqlite3_io_methods){2, shim_Close, shim_Read, shim_Write, shim_Truncate, shim_Sync, shim_FileSize,
    shim_Lock, shim_Unlock, shim_CheckReservedLock, shim_FileControl, shim_SectorSize, shim_DeviceCharacteristics,
    shim_ShmMap, shim_ShmLock, shim_ShmBarrier, shim_ShmUnmap, NULL, NULL};
  sqlite3_vfs_register(&shim.vfs, 1);
}

/* The allocation after `countdown` others fails. */
static struct {
  sqlite3_mem_methods real;
  long countdown; /* -1: off */
} memory;

static inline bool memory_fails(void) { return memory.countdown >= 0 && memory.countdown-- == 0; }
static inline void *memory_malloc(int bytes) { return memory_fails() ? NULL : memory.real.xMalloc(bytes); }
static inline void *memory_realloc(void *old, int bytes) { return memory_fails() ? NULL : memory.real.xRealloc(old, bytes); }

static inline void memory_install(void) {
  sqlite3_mem_methods methods;
  memory.countdown = -1;
  sqlite3_config(SQLITE_CONFIG_GETMALLOC, &memory.real);
  methods = memory.real;
  methods.xMalloc = memory_malloc;
  methods.xRealloc = memory_realloc;
  sqlite3_config(SQLITE_CONFIG_MALLOC, &methods);
}

#endif

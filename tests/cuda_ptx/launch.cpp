/* launch.cpp: lets the emulator run kernels as nvcc has translated them, in the place of those that g++ has.
 *
 * Owns the table of kernels, found by the names that both compilers give them, and what a launch of one needs: its parameters' bytes
 * and the places of its shared memory. Refuses what a device would: other parameters, more threads than the kernel was compiled for,
 * more shared memory than a block may have. */
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "tests/cuda_ptx/machine.h"

namespace ptx {

entry *known;

void know(entry *kernels, int n) {
  for (int i = 0; i < n; i++) kernels[i].next = known, known = &kernels[i];
}

[[noreturn]] static void die(const char *what, const char *name) {
  fprintf(stderr, "kernels of nvcc: %s: %s\n", name, what);
  abort();
}

static entry *entry_named(const std::string &name) {
  for (entry *e = known; e; e = e->next)
    if (name == e->name) return e;
  return nullptr;
}

/* g++ marks what only its file sees by an L, nvcc does not. */
static std::string name_of_nvcc(const char *name) { return strncmp(name, "_ZL", 3) == 0 ? std::string("_Z") + (name + 3) : std::string(name); }

struct image {
  const unsigned char *file, *base; /* the library's bytes as they lie in its file, and where it was loaded */

  template <class T> const T *at(size_t offset) const { return (const T *)(const void *)(file + offset); }
};

static image own_image() {
  Dl_info info;
  struct stat stat;
  if (!dladdr((const void *)&know, &info)) die("its library is not found", "all");
  int file = open(info.dli_fname, O_RDONLY);
  if (file < 0 || fstat(file, &stat) != 0) die("its library is not read", info.dli_fname);
  void *bytes = mmap(nullptr, (size_t)stat.st_size, PROT_READ, MAP_PRIVATE, file, 0);
  close(file);
  if (bytes == MAP_FAILED) die("its library is not read", info.dli_fname);
  return {(const unsigned char *)bytes, (const unsigned char *)info.dli_fbase};
}

/* The host knows a kernel by the address of g++'s function; the library's table of symbols has its name. */
static std::map<const void *, entry *> read_symbols() {
  std::map<const void *, entry *> found;
  image own = own_image();
  const Elf64_Ehdr *head = own.at<Elf64_Ehdr>(0);
  const Elf64_Shdr *sections = own.at<Elf64_Shdr>(head->e_shoff);
  for (int i = 0; i < head->e_shnum; i++) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    const Elf64_Sym *symbols = own.at<Elf64_Sym>(sections[i].sh_offset);
    const char *names = own.at<char>(sections[sections[i].sh_link].sh_offset);
    for (size_t k = 0; k < sections[i].sh_size / sizeof *symbols; k++) {
      if (ELF64_ST_TYPE(symbols[k].st_info) != STT_FUNC) continue;
      entry *e = entry_named(name_of_nvcc(names + symbols[k].st_name));
      if (e) found[own.base + symbols[k].st_value] = e;
    }
  }
  if (found.empty()) die("its table of symbols is missing: it must not be stripped", "the library");
  return found;
}

static entry *entry_of(const void *kernel) {
  static const std::map<const void *, entry *> &all = *new std::map<const void *, entry *>(read_symbols());
  auto found = all.find(kernel);
  if (found == all.end()) die("no PTX is known of a kernel that is launched", "the library");
  return found->second;
}

/* One launch: what its threads have in common. */
struct launched {
  const entry *kernel;
  std::vector<unsigned char> parameters, valid;
  uint32_t shared_bytes;

  void cover(uint32_t at, uint32_t bytes) {
    for (uint32_t i = at - SHARED_BEGIN; bytes; i += 16) {
      uint32_t some = bytes < 16 ? bytes : 16;
      valid[i / 16] = (unsigned char)some;
      bytes -= some;
    }
  }
  launched(const entry *e, const void *args, size_t bytes, uint32_t dynamic)
      : kernel(e), parameters((const unsigned char *)args, (const unsigned char *)args + bytes),
        valid((e->dynamic_begin - SHARED_BEGIN + dynamic) / 16 + 1), shared_bytes(e->dynamic_begin - SHARED_BEGIN + dynamic) {
    for (uint32_t i = 0; i < e->n_shared; i++) cover(e->shared[i].at, e->shared[i].bytes);
    cover(e->dynamic_begin, dynamic);
  }
  void run() const {
    view v;
    v.parameters = parameters.data();
    v.parameter_bytes = kernel->parameter_bytes;
    v.shared = emulated::dynamic_shared;
    v.valid = valid.data();
    v.shared_bytes = shared_bytes;
    v.tid = emulated::here->thread, v.ntid = emulated::block_size, v.ctaid = emulated::block_index, v.nctaid = emulated::grid_size;
    v.laneid = (uint32_t)emulated::lane();
    kernel->run(v);
  }
};
} // namespace ptx

size_t emulated::translated_statics(const void *kernel) { return ptx::entry_of(kernel)->static_bytes; }

void emulated::translate(const void *kernel, const void *args, size_t bytes, kernel_call *call) {
  ptx::entry *e = ptx::entry_of(kernel);
  if (bytes != e->parameter_bytes) ptx::die("its parameters have another size for nvcc than for g++", e->name);
  size_t threads = (size_t)call->block.x * call->block.y * call->block.z;
  if (e->most_threads && threads > e->most_threads) ptx::die("launched with more threads than __launch_bounds__ says", e->name);
  e->launches++;
  e->threads += (uint64_t)call->grid.x * call->grid.y * call->grid.z * threads;
  auto all = std::make_shared<ptx::launched>(e, args, bytes, (uint32_t)call->shared);
  call->name = e->name;
  call->shared = all->shared_bytes;
  call->thread = [all]() { all->run(); };
}

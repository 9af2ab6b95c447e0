/* torch_archive.h: one .pth/.pt file as torch.save writes it since 1.6. Private to this room; tensors.h is
 * the way in.
 *
 *   ROOT/data.pkl    a pickle: the dict, with tensors as calls of torch._utils._rebuild_tensor_v2
 *   ROOT/data/KEY    the elements of one storage, several tensors may share it
 *   ROOT/byteorder   "little", where present
 *
 * Names: the top must be a dict. Its tensors keep their keys; dicts, lists and tuples below it are flattened
 * with a dot between ("state_dict.W_enc", "experts.0"). Everything that is no tensor is left out: torch files
 * carry step counters and settings beside their weights.
 *
 * The CRC-32 of data.pkl is compared; those of the storages are not, which would read a file of gigabytes whole
 * before its first use. */
#ifndef STEERD_CORE_MODEL_TORCH_ARCHIVE_H
#define STEERD_CORE_MODEL_TORCH_ARCHIVE_H

#include "core/base/mapfile.h"
#include "core/model/tensor_list.h"

/* Appends the tensors of a mapped file; their data borrows the mapping. Strides are those of the file: a view
 * may be transposed or a slice, but no element may stand for two. `path` is for error texts. On error the list
 * may hold a part: the caller drops it. */
int torch_archive_read(const char *path, const struct mapfile *file, struct tensor_list *list,
                       struct error *error) MUST_CHECK;

#endif

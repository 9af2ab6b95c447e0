/* npy.h: the header of one array as numpy.save writes it. Private to this room; tensors.h is the way in.
 *
 *   bytes 0..5    \x93NUMPY
 *   bytes 6, 7    version: 1.0, 2.0 or 3.0
 *   then          length of the text: u16 (1.0) or u32 little endian
 *   the text      {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }, padded, ended by a newline
 *   the rest      the elements, little endian; column-major when fortran_order is True
 *
 * Read: f2, f4, f8, signed and unsigned integers of 1 to 8 bytes, bool; "V2" is what numpy writes for bfloat16 and
 * read as that. Known but not computed with (DTYPE_OTHER): complex, long double, texts, other plain bytes, times.
 * Refused: Python objects (they are pickles), records, big-endian elements, more than 8 dimensions, a text longer
 * than 16,000 bytes (numpy itself reads 10,000), anything that is not exactly this dict. */
#ifndef STEERD_CORE_MODEL_NPY_H
#define STEERD_CORE_MODEL_NPY_H

#include <stdbool.h>
#include <stddef.h>

#include "core/model/tensors.h"

#define NPY_HEADER_MAX 16012 /* with the bytes in front of the text */

/* True when data[0..size) begins as an array does. */
bool npy_begins(const unsigned char *data, size_t size);

/* Reads a header from the front of data[0..size), size being all there is of it or at least NPY_HEADER_MAX. Fills
 * dtype, shape, strides and bytes of *out, nothing else, and the place of the first element. Errors name no file. */
int npy_read_header(const unsigned char *data, size_t size, struct tensor *out, size_t *data_at,
                    struct error *error) MUST_CHECK;

#endif

/* number.h: numbers as text, and text as numbers, the same in every locale. */
#ifndef STEERD_CORE_BASE_NUMBER_H
#define STEERD_CORE_BASE_NUMBER_H

#include <stdbool.h>
#include <stdint.h>

/* The shortest decimal that reads back to the same float32 ("0.1", "1e-45", "16777216"), at most 16 bytes
 * with NUL. Not for NaN or infinities: the caller writes null for them. Returns the length. */
int number_f32(float value, char out[24]);

/* A whole number. Returns the length. */
int number_int(int64_t value, char out[24]);

/* As the first for a double. */
int number_f64(double value, char out[32]);

/* A whole decimal integer with optional sign and nothing behind it. False when it is not one or too large. */
bool number_parse_int(const char *text, int64_t *out);

/* A whole decimal number ("2", "0.5", "1e-3"); no hexadecimal, no NaN, no infinity. */
bool number_parse_double(const char *text, double *out);

#endif

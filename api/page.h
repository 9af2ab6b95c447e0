/* page.h: how the plain pages are written (pages.c): no inline script or style, everything escaped. */
#ifndef STEERD_API_PAGE_H
#define STEERD_API_PAGE_H

#include "api/call.h"

void page_open(struct api_call *call, const char *title);
void page_close(struct api_call *call);
void page_escaped(struct buffer *out, const char *text);
void page_element(struct buffer *out, const char *tag, const char *text); /* <tag>text</tag> */

#endif

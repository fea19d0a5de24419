/* compress.h - what compress.c, payload.c, samples.c, input.c, list.c, against.c and image.c share:
 * mbrun's way with .mbz and .mbi files.
 * SPDX-License-Identifier: MIT
 *
 * Functions that return int return 1 if all went well and 0 after a message, so that other files
 * get their turn. */
#ifndef COMPRESS_H
#define COMPRESS_H

#include "mbrun.h"
#include "output.h"
#include "picture.h"

#define PIECE 65536 /* bytes read, and written, at a time */

#define PACKED_HEADER_MOST (64 + MEGABYTE_LAYOUT_MAX) /* of a .mbi file */

/* Without --limit a file may decode to what honest data might: see max_ratio in megabyte.h. */
#define LIKELY_RATIO 1024
#define UNLIKELY_ONLY UINT64_MAX /* as `limit`: none was given */

typedef struct zipper {
    const command *self;
    shared_options shared;
    megabyte_mode mode; /* compress or decompress */
    const char *suffix; /* of compressed files: ".mbz" */
    int gives_pictures; /* not any files: .mbi */
    const char *output, *dictionary_file, *file_type;
    const char *as; /* what the files are: "mulaw" ...; NULL: as they say */
    megabyte_contents contents; /* the same, and how many channels */
    uint32_t channels;
    uint64_t streams, block_size, limit, level, ensemble;
    drafts drafts;
    int to_stdout, keep, force, remove_input, verify, verbose, quiet, against;
    int recursive, decompresses; /* -r; -d */
    int writes; /* 0: test and --against only count */
    bytes dictionary;
    known_models known;
    int have_known; /* `known` was filled */
    session s;
    int is_open; /* the session's model */
    int needs_model; /* the codec does; without, it is context mixing alone */
    session beside; /* the model of pictures or sound, beside it */
    int beside_is_open;
    megabyte_codec *codec;
    int size_was_told; /* to the codec */
    progress bar;
    uint8_t *input, *result; /* PIECE bytes each */
} zipper;

/* One file on its way. */
typedef struct job {
    zipper *z;
    const char *path, *name; /* name: what messages call it */
    int in;
    struct stat status; /* of the input */
    uint64_t size; /* bytes of the input from where it stands; MEGABYTE_SIZE_UNKNOWN for pipes */
    uint64_t expected; /* original bytes, for the bar; 0: unknown */
    char claim[128]; /* what the headers say of the work ahead; "" if unknown or little */
    uint8_t head[MEGABYTE_HEADER_MAX]; /* what was read already */
    size_t n_head;
    int is_link; /* the input's name is a symbolic link */
    output to; /* path NULL: standard output, or none */
    int to_stdout;
    uint64_t bytes_in, bytes_out;
    double seconds;
    megabyte_statistics counts;
    int has_trailing_data;
    /* decompressing a file whose members need several models: */
    bytes recent; /* what the codec was given and may not have decoded yet, ... */
    uint64_t recent_at; /* ... from this offset on, counted from the codec's first byte */
    bytes rest; /* what was read already and comes next, */
    size_t rest_at; /* from here on */
    int goes_on; /* the codec stopped at a member that is not its own */
    uint64_t switches, pictures; /* how often; members that are pictures */
    uint64_t claimed, packed; /* of these: samples, and bytes in the file */
    uint64_t sounds; /* files of which an audio model packed the samples, */
    uint64_t linear; /* or contexts for linear samples */
} job;

/* ---- input.c */

/* Up to n bytes, 0 at the end, -1 after a message (or without one after Ctrl-C). */
ssize_t read_some(int file, void *out, size_t n, const char *name);
int input_waits(int file);

/* Links are followed where nothing is put beside them. */
int open_input(job *j, int follow, int any_kind);
void close_input(const job *j);

/* At least four bytes of it, unless there are fewer. */
int peek(job *j);
/* Reads just enough for the header: more may not come before we answer. */
int read_head(job *j, megabyte_file_header *header);

/* What the headers of a .mbz file say. */
typedef struct survey {
    megabyte_file_header first; /* the first member's header */
    uint64_t original, compressed, members, blocks, by_method[MEGABYTE_METHOD_COUNT];
    uint64_t pictures; /* members that are packed pictures */
    uint64_t predicted; /* of `original`, what the model must read byte by byte */
    /* what a codec must be made for: the largest, the smallest, the most */
    uint32_t block_size, context_shift, mixing_memory, ensemble;
    uint32_t format_version; /* the newest */
    int has_model, has_several_models, has_context; /* has_context: not of pictures */
    uint8_t model_id[6]; /* of the first member that has a model */
} survey;

/* Walks from header to header without decoding, until the end or the first fault (told in *error:
 * its offset counts from the beginning of the input). At most max_blocks. error->status is IO if a
 * message was printed. */
megabyte_status survey_file(const job *j, uint64_t max_blocks, survey *v, megabyte_error *error);

/* ---- folders.c */

typedef struct path_list {
    char **path;
    size_t n;
} path_list;
/* Copies of the names, in place of folders (-r) the files in them that there is work for. */
int find_files(const zipper *z, char **paths, int n, path_list *list);
void free_paths(path_list *list);
#define RECURSIVE_HELP "the files in FILEs that are folders, and in the folders in these"

/* ---- compress.c */

int has_suffix(const zipper *z, const char *path);
int skip(const zipper *z, const char *what, const char *why); /* 0: with a message */

/* Decides where the output goes. Nothing is created yet. */
int choose_output(job *j);
int write_out(job *j, const uint8_t *data, size_t n);
int close_output(job *j, int good); /* keeps it, or not */
/* What --rm does in the end. The open file and its name must be what they were before reading. */
int remove_input(const job *j);
/* Opens the model that a file was compressed with: id[n], the first bytes of its id. */
int use_model_of(zipper *z, const job *j, const uint8_t *id, size_t n);
int may_switch(job *j); /* to another model, in the middle of a file; 0 after a message */
void close_model(zipper *z);
megabyte_codec_options options_for_compressing(job *j, const session *s); /* by this model */
int is_regular(const job *j);
const char *base_name(const char *path);
void open_with(zipper *z, const shared_options *shared);
const known_models *models_at_hand(zipper *z);
void print_id(FILE *out, const uint8_t *id, size_t n);
double quotient(double a, double b);
double or_zero(double value);
void json_blocks(const uint64_t by_method[MEGABYTE_METHOD_COUNT]);
int process(job *j);

extern const char *const method_names[MEGABYTE_METHOD_COUNT];

/* ---- payload.c */

#define FILE_MOST ((uint64_t)1 << 30) /* bytes of a file that is packed, or of a member */

int begins_with_picture(const uint8_t *p, size_t n);
/* Packs the file as a picture if it is one and that is smaller: *is_done. Else nothing has
 * changed. */
int pack_payload(job *j, int *is_done);
/* Of `rest`: reads on until it has n bytes, or the input ends. */
int gather(job *j, uint64_t n);
int unpack_payload(job *j); /* the picture that `rest` begins with */
/* Shared with samples.c: */
int may_have_payload(const zipper *z); /* 0: options speak against it */
/* The model of this name, beside that of text; NULL: none is shipped, or -m names another. */
const session *model_beside(zipper *z, const char *name);
void close_model_beside(zipper *z);
/* Up to n bytes of a regular file's beginning; its place stays. 0: none, or it cannot be read. */
size_t look_ahead(const job *j, uint8_t *head, size_t n);
int read_ahead(const job *j, bytes *file); /* the same with all of it; 1, or 0 */
/* Bytes that compressing data[n] comes to; UINT64_MAX if it fails. level 0: as asked for. */
uint64_t size_without(job *j, const session *s, const uint8_t *data, size_t n, int level);
/* Shared with image.c: */
megabyte_image as_image(const picture *p);
int on_samples(void *context, uint64_t done); /* a progress function; context: job */
/* Tells why; 0. */
int packing_failed(const job *j, megabyte_status status, const megabyte_error *error);
/* Decodes what was just packed and compares. */
int verify_picture(job *j, const session *s, const uint8_t *coded, size_t n, const picture *p);

/* ---- samples.c */

/* Packs the file by the model of sound if it holds mu-law samples, by contexts for them if it holds
 * linear samples, and that is smaller: *is_done. Else nothing has changed. */
int pack_sound(job *j, int *is_done);
int is_mulaw(const job *j); /* a regular file that is mostly mu-law samples */
/* "s16le:2" ...: returns 1, or 0: there is no such. */
int contents_named(const char *text, megabyte_contents *contents, uint32_t *channels);
/* The name in text; NULL: general. */
const char *name_contents(const megabyte_file_header *h, char text[16]);
#define CONTENTS_HELP "mulaw, u8, s16le (:2 stereo), s16be, s24le, s24be"

/* ---- list.c, against.c */

size_t name_length(const char *path);
void print_column(const char *text, int width); /* harmlessly, then spaces */
int compare_all(zipper *z, char **paths, int n);

#endif

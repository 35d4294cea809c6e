/* A PKCS#11 module in front of another one (ODD_MODULE) that behaves as some tokens do and SoftHSM2 doesn't.

   ODD_FILE names a file of words, read at every call, so that a test changes them while the module runs:
     <function>=<hex>   that function returns this CKR_ code          <function>=<hex>!  once
     no-raw             only mechanisms that make the digest themselves
     no-ec              no EC at all
     bare-point         CKA_EC_POINT is the point itself, without the OCTET STRING around it
     curve-name         CKA_EC_PARAMS is the curve's name
     no-curve           private keys don't say their curve, public ones neither: only CKA_EC_POINT is there
     spelled-out        a template that doesn't say CKA_DERIVE is inconsistent
     write-protected    no session for writing
     strange-slot       a slot before the others, whose token says CKR_DEVICE_ERROR
     wrong-signature    what is signed doesn't verify
     keeps-rights       attributes can't be changed
   ODD_LOG names a file that gets the name of each function called here, a line each.
   ODD_RESERVED is said to the module when it starts (as softokn of NSS wants).  */

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long U;
typedef struct { U type; void *value; U length; } Attribute;
typedef struct { U mechanism; void *parameter; U length; } Mechanism;
typedef struct { void *lock[4]; U flags; void *reserved; } Arguments;
typedef struct { unsigned char version[2]; void *call[68]; } Functions;

/* Places in CK_FUNCTION_LIST (PKCS#11 2.40). */
enum { INITIALIZE = 0, SLOT_LIST = 4, SLOT_INFO = 5, TOKEN_INFO = 6, MECHANISM_LIST = 7, OPEN_SESSION = 12, LOGIN = 18,
       DESTROY = 22, GET_ATTRIBUTES = 24, SET_ATTRIBUTES = 25, FIND_INIT = 26, SIGN_INIT = 42, SIGN = 43,
       GENERATE_PAIR = 59 };
enum { OK = 0, DEVICE_ERROR = 0x30, TYPE_INVALID = 0x12, READ_ONLY = 0x10, MECHANISM_INVALID = 0x70,
       INCONSISTENT = 0xD1, WRITE_PROTECTED = 0xE2 };
enum { STRANGE = 4711, WRITING = 2 };
enum { EC_PARAMS = 0x180, EC_POINT = 0x181, DERIVE = 0x10C };

static Functions *real, ours;

static int has(const char *word) {
    const char *name = getenv("ODD_FILE");
    char found[128];
    int yes = 0;
    FILE *file = name ? fopen(name, "r") : NULL;
    if (!file) return 0;
    while (!yes && fscanf(file, "%127s", found) == 1) yes = strcmp(found, word) == 0;
    fclose(file);
    return yes;
}

/* Whether this function shall fail now; a word with ! is used up. */
static int fails(const char *function, U *code) {
    const char *name = getenv("ODD_FILE"), *log = getenv("ODD_LOG");
    char words[64][128], *is;
    int count = 0, hit = -1, i;
    FILE *file = log ? fopen(log, "a") : NULL;
    if (file) { fprintf(file, "%s\n", function); fclose(file); }
    file = name ? fopen(name, "r") : NULL;
    if (!file) return 0;
    while (count < 64 && fscanf(file, "%127s", words[count]) == 1) count++;
    fclose(file);
    for (i = 0; i < count && hit < 0; i++) {
        is = strchr(words[i], '=');
        if (is && (size_t)(is - words[i]) == strlen(function) && !strncmp(words[i], function, is - words[i])) hit = i;
    }
    if (hit < 0) return 0;
    *code = strtoul(strchr(words[hit], '=') + 1, NULL, 16);
    if (strchr(words[hit], '!') && (file = fopen(name, "w"))) {
        for (i = 0; i < count; i++) if (i != hit) fprintf(file, "%s\n", words[i]);
        fclose(file);
    }
    return 1;
}

#define FAIL(function) do { U code; if (fails(function, &code)) return code; } while (0)
#define REAL(place, ...) ((U (*)())real->call[place])(__VA_ARGS__)

static U initialize(void *arguments) {
    const char *said = getenv("ODD_RESERVED");
    Arguments with = { { 0 }, 2, (void *)said };
    FAIL("C_Initialize");
    return REAL(INITIALIZE, said ? (void *)&with : arguments);
}

static U slot_list(unsigned char present, U *slots, U *count) {
    U code, room = *count;
    if (!has("strange-slot")) return REAL(SLOT_LIST, present, slots, count);
    room = slots ? room - 1 : 0;
    code = REAL(SLOT_LIST, present, slots ? slots + 1 : NULL, &room);
    if (slots) slots[0] = STRANGE;
    *count = room + 1;
    return code;
}

static U slot_info(U slot, void *info) {
    if (slot != STRANGE) return REAL(SLOT_INFO, slot, info);
    memset(info, ' ', 64 + 32);
    memset((char *)info + 96, 0, 16);
    return OK;
}

static U token_info(U slot, void *info) {
    if (slot == STRANGE) return DEVICE_ERROR;
    FAIL("C_GetTokenInfo");
    return REAL(TOKEN_INFO, slot, info);
}

static int left_out(U mechanism) {
    if (has("no-raw") && (mechanism == 0x1 || mechanism == 0x1041)) return 1;
    return has("no-ec") && mechanism >= 0x1040 && mechanism <= 0x104F;
}

static U mechanism_list(U slot, U *list, U *count) {
    U code = REAL(MECHANISM_LIST, slot, list, count), i, kept = 0;
    FAIL("C_GetMechanismList");
    if (code != OK || !list) return code;
    for (i = 0; i < *count; i++) if (!left_out(list[i])) list[kept++] = list[i];
    *count = kept;
    return OK;
}

static U open_session(U slot, U flags, void *data, void *notify, U *session) {
    FAIL("C_OpenSession");
    if (has("write-protected") && (flags & WRITING)) return WRITE_PROTECTED;
    return REAL(OPEN_SESSION, slot, flags, data, notify, session);
}

static U login(U session, U user, unsigned char *pin, U length) {
    FAIL("C_Login");
    return REAL(LOGIN, session, user, pin, length);
}

static U destroy(U session, U object) {
    FAIL("C_DestroyObject");
    return REAL(DESTROY, session, object);
}

static U give(Attribute *a, const void *octets, U length) {
    U room = a->length;
    a->length = length;
    if (!a->value) return OK;
    if (room < length) return 0x150;
    memcpy(a->value, octets, length);
    return OK;
}

static U get_attributes(U session, U object, Attribute *list, U count) {
    unsigned char octets[512];
    U i, code = OK, one;
    FAIL("C_GetAttributeValue");
    if (!has("bare-point") && !has("curve-name") && !has("no-curve"))
        return REAL(GET_ATTRIBUTES, session, object, list, count);
    for (i = 0; i < count; i++) {
        Attribute own = { list[i].type, octets, sizeof octets };
        if (list[i].type == EC_PARAMS && has("no-curve")) {
            list[i].length = (U)-1;
            one = TYPE_INVALID;
        } else if (list[i].type == EC_PARAMS && has("curve-name")) {
            one = REAL(GET_ATTRIBUTES, session, object, &own, 1UL);
            if (one == OK && own.length == 10) one = give(&list[i], "\x13\x09secp256r1", 11);
            else if (one == OK) one = give(&list[i], "\x13\x09secp384r1", 11);
        } else if (list[i].type == EC_POINT && has("bare-point")) {
            one = REAL(GET_ATTRIBUTES, session, object, &own, 1UL);
            if (one == OK) one = give(&list[i], octets + 2, own.length - 2);
        } else {
            one = REAL(GET_ATTRIBUTES, session, object, &list[i], 1UL);
        }
        if (one != OK) code = one;
    }
    return code;
}

static U set_attributes(U session, U object, Attribute *list, U count) {
    FAIL("C_SetAttributeValue");
    if (has("keeps-rights")) return READ_ONLY;
    return REAL(SET_ATTRIBUTES, session, object, list, count);
}

static U find_init(U session, Attribute *list, U count) {
    FAIL("C_FindObjectsInit");
    return REAL(FIND_INIT, session, list, count);
}

static U sign_init(U session, Mechanism *mechanism, U key) {
    FAIL("C_SignInit");
    if (left_out(mechanism->mechanism)) return MECHANISM_INVALID;
    return REAL(SIGN_INIT, session, mechanism, key);
}

static U sign(U session, unsigned char *data, U length, unsigned char *signature, U *room) {
    U code, failed = REAL(SIGN, session, data, length, signature, room);
    /* Asked for the length only, it isn't over. */
    if (!signature) return failed;
    if (fails("C_Sign", &code)) return code;
    if (failed == OK && has("wrong-signature")) signature[*room - 1] ^= 1;
    return failed;
}

static U generate_pair(U session, Mechanism *mechanism, Attribute *public, U publics, Attribute *private, U privates,
                       U *half, U *other) {
    U i, said = 0;
    FAIL("C_GenerateKeyPair");
    for (i = 0; i < privates; i++) said |= private[i].type == DERIVE;
    if (has("spelled-out") && !said) return INCONSISTENT;
    return REAL(GENERATE_PAIR, session, mechanism, public, publics, private, privates, half, other);
}

U C_GetFunctionList(Functions **list) {
    void *module = dlopen(getenv("ODD_MODULE"), RTLD_NOW | RTLD_LOCAL);
    U (*get)(Functions **) = module ? (U (*)(Functions **))dlsym(module, "C_GetFunctionList") : NULL;
    if (!get || get(&real) != OK) return 5;
    ours = *real;
    ours.version[0] = 2;
    ours.version[1] = 40;
    ours.call[3] = (void *)C_GetFunctionList;
    ours.call[INITIALIZE] = (void *)initialize;
    ours.call[SLOT_LIST] = (void *)slot_list;
    ours.call[SLOT_INFO] = (void *)slot_info;
    ours.call[TOKEN_INFO] = (void *)token_info;
    ours.call[MECHANISM_LIST] = (void *)mechanism_list;
    ours.call[OPEN_SESSION] = (void *)open_session;
    ours.call[LOGIN] = (void *)login;
    ours.call[DESTROY] = (void *)destroy;
    ours.call[GET_ATTRIBUTES] = (void *)get_attributes;
    ours.call[SET_ATTRIBUTES] = (void *)set_attributes;
    ours.call[FIND_INIT] = (void *)find_init;
    ours.call[SIGN_INIT] = (void *)sign_init;
    ours.call[SIGN] = (void *)sign;
    ours.call[GENERATE_PAIR] = (void *)generate_pair;
    *list = &ours;
    return OK;
}

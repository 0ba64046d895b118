/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON Schemas that several route rows share, as string literals to paste together.
 */
#ifndef MILLRACE_POINTS_API_SCHEMA_H
#define MILLRACE_POINTS_API_SCHEMA_H

#define SCHEMA_OBJECT(properties) "{\"type\":\"object\",\"properties\":{" properties "}}"
#define SCHEMA_REQUIRED(required, properties)                                                      \
    "{\"type\":\"object\",\"required\":[" required "],\"properties\":{" properties "}}"
#define SCHEMA_ARRAY(items) "{\"type\":\"array\",\"items\":" items "}"
#define SCHEMA_TYPE(type) "{\"type\":\"" type "\"}"
#define SCHEMA_FIELD(name, schema) "\"" name "\":" schema

#define SCHEMA_ANY "{}"
/* Anything, of which a page shows the example. */
#define SCHEMA_ANY_AS(example) "{\"examples\":[" example "]}"
#define SCHEMA_ANY_VECTOR SCHEMA_ANY_AS("[0.1,0.2,0.3,0.4]")
#define SCHEMA_STRING SCHEMA_TYPE("string")
#define SCHEMA_INTEGER SCHEMA_TYPE("integer")
#define SCHEMA_NUMBER SCHEMA_TYPE("number")
#define SCHEMA_BOOLEAN SCHEMA_TYPE("boolean")
#define SCHEMA_MAP SCHEMA_TYPE("object")
#define SCHEMA_ID                                                                                  \
    "{\"oneOf\":[{\"type\":\"integer\",\"minimum\":0},{\"type\":\"string\",\"format\":\"uuid\"}]}"
#define SCHEMA_VECTOR                                                                              \
    "{\"oneOf\":[" SCHEMA_ARRAY(SCHEMA_NUMBER) ",{\"type\":\"object\","                            \
                                               "\"additionalProperties\":" SCHEMA_ARRAY(           \
                                                   SCHEMA_NUMBER) "}]}"
#define SCHEMA_POINT                                                                               \
    SCHEMA_REQUIRED(                                                                               \
        "\"id\",\"vector\"",                                                                       \
        SCHEMA_FIELD("id", SCHEMA_ID) "," SCHEMA_FIELD("vector", SCHEMA_VECTOR) "," SCHEMA_FIELD(  \
            "payload", "{\"type\":[\"object\",\"null\"]}"))
#define SCHEMA_RECORD                                                                              \
    SCHEMA_OBJECT(SCHEMA_FIELD("id", SCHEMA_ID) "," SCHEMA_FIELD(                                  \
        "payload", SCHEMA_MAP) "," SCHEMA_FIELD("vector", SCHEMA_VECTOR))
#define SCHEMA_HIT                                                                                  \
    SCHEMA_OBJECT(                                                                                  \
        SCHEMA_FIELD("id", SCHEMA_ID) "," SCHEMA_FIELD("version", SCHEMA_INTEGER) "," SCHEMA_FIELD( \
            "score", SCHEMA_NUMBER) "," SCHEMA_FIELD("payload",                                     \
                                                     SCHEMA_MAP) "," SCHEMA_FIELD("vector",         \
                                                                                  SCHEMA_VECTOR))
#define SCHEMA_SELECT                                                                              \
    SCHEMA_FIELD("with_payload", SCHEMA_ANY_AS("true"))                                            \
    "," SCHEMA_FIELD("with_vector", SCHEMA_ANY_AS("false"))
/* Qdrant's envelope. */
#define SCHEMA_QDRANT(result)                                                                      \
    SCHEMA_OBJECT(SCHEMA_FIELD("result", result) "," SCHEMA_FIELD(                                 \
        "status", SCHEMA_STRING) "," SCHEMA_FIELD("time", SCHEMA_NUMBER))
#define SCHEMA_UPDATE                                                                              \
    SCHEMA_QDRANT(SCHEMA_OBJECT(SCHEMA_FIELD("operation_id", SCHEMA_INTEGER) "," SCHEMA_FIELD(     \
        "status", "{\"type\":\"string\",\"enum\":[\"acknowledged\",\"completed\"]}")))

#endif

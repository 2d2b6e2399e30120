-- Where the rollout of a model stands. Its revision is one higher with each change.
CREATE TABLE sluicegate_rollout (
    model TEXT NOT NULL PRIMARY KEY,
    digest TEXT NOT NULL,
    revision BIGINT NOT NULL,
    document TEXT NOT NULL
);

-- What one life of a replica has counted; it alone writes there.
CREATE TABLE sluicegate_evidence (
    model TEXT NOT NULL,
    digest TEXT NOT NULL,
    stage BIGINT NOT NULL,
    replica TEXT NOT NULL,
    at_ms BIGINT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (model, digest, stage, replica)
);

-- What happened, by the number within its model. The revision is that of the row it came with, or 0.
CREATE TABLE sluicegate_event (
    model TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    id TEXT NOT NULL,
    revision BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (model, sequence),
    UNIQUE (model, id)
);

-- The last number that was given to an event. Whoever gives the next holds this row to the transaction's end, so that numbers
-- become visible in their order: a reader who has seen one has seen all before it.
CREATE TABLE sluicegate_feed (
    model TEXT NOT NULL PRIMARY KEY,
    last BIGINT NOT NULL
);

CREATE TABLE sluicegate_schema (
    version BIGINT NOT NULL
);

namespace Fleet.Api.Problems;

/// <param name="Code">Stable, for programs; never reused for something else.</param>
public sealed record ProblemType(string Code, int Status, string Title);

/// <summary>Every problem that this API answers with.</summary>
public static class ProblemTypes
{
    public static readonly ProblemType InvalidRequest = new("invalid-request", 400, "The request is not valid");
    public static readonly ProblemType MalformedBody = new("malformed-body", 400, "The body is not the JSON that this request takes");
    public static readonly ProblemType InvalidId = new("invalid-id", 400, "Not an id");
    public static readonly ProblemType TooManyPages = new("too-many-pages", 400, "Too many pages in one request");
    public static readonly ProblemType PageUnaligned = new("page-unaligned", 400, "A page is not aligned to its size");
    public static readonly ProblemType FrameOutsideMemory = new("frame-outside-memory", 400, "A page is not inside the VM's memory");
    public static readonly ProblemType Unauthenticated = new("unauthenticated", 401, "A valid bearer token is needed");
    public static readonly ProblemType JoinTokenInvalid = new("join-token-invalid", 401, "The join token is not valid for this host");
    public static readonly ProblemType Forbidden = new("forbidden", 403, "The token does not have the right to do this");
    public static readonly ProblemType WrongHost = new("wrong-host", 403, "The credential belongs to another host");
    public static readonly ProblemType NotFound = new("not-found", 404, "There is nothing at this path");
    public static readonly ProblemType UnknownVm = new("unknown-vm", 404, "No such VM");
    public static readonly ProblemType UnknownPage = new("unknown-page", 404, "The frame is not poisoned");
    public static readonly ProblemType HostNotFound = new("unknown-host", 404, "No such host");
    public static readonly ProblemType UnknownMigration = new("unknown-migration", 404, "No such migration");
    public static readonly ProblemType UnknownToken = new("unknown-token", 404, "No such token");
    public static readonly ProblemType MethodNotAllowed = new("method-not-allowed", 405, "This path does not take this method");
    public static readonly ProblemType UnknownHost = new("unknown-host", 409, "The host is not known: make a join token for it first");
    public static readonly ProblemType HostDrained = new("host-drained", 409, "The host is drained: nothing new is placed on it");
    public static readonly ProblemType UseMigration = new("use-migration", 409, "Only a migration changes a VM's host");
    public static readonly ProblemType MigrationExists = new("migration-exists", 409, "A migration with this id, but other contents, exists already");
    public static readonly ProblemType MigrationActive = new("migration-active", 409, "The VM has an active migration");
    public static readonly ProblemType MigrationSwitching = new("migration-switching", 409, "The VM is being switched over: not until that has ended");
    public static readonly ProblemType MigrationEnded = new("migration-ended", 409, "The migration has ended");
    public static readonly ProblemType GateDenied = new("gate-denied", 409, "The gate denies it; see reasons");
    public static readonly ProblemType NotLifted = new("not-lifted", 409, "The target has not lifted its barrier");
    public static readonly ProblemType AlreadyLifted = new("already-lifted", 409, "The guest runs on the target: only a new migration brings it back");
    public static readonly ProblemType FenceRefused = new("fence-refused", 409, "The override is not possible here");
    public static readonly ProblemType HostOnline = new("host-online", 409, "The host's agent is heard: it is not dead");
    public static readonly ProblemType Quarantined = new("vm-quarantined", 409, "After a restore from backup: not before the hosts have said what they hold");
    public static readonly ProblemType ResetWanted = new("reset-wanted", 409, "A reset waits for the owner's agent");
    public static readonly ProblemType NotPlaced = new("not-placed", 409, "The VM has no host");
    public static readonly ProblemType CoveredByLarger = new("covered-by-larger", 409, "The frame lies inside a larger poisoned page");
    public static readonly ProblemType JoinTokenUsed = new("join-token-used", 409, "The join token was used for another credential");
    public static readonly ProblemType CredentialExists = new("credential-exists", 409, "A credential with this id exists already");
    public static readonly ProblemType CredentialReplaced = new("credential-replaced", 409, "The credential has been replaced by another one already");
    public static readonly ProblemType LastAdmin = new("last-admin", 409, "It is the last administrator's token: nobody could make another");
    public static readonly ProblemType AgentSuperseded = new("agent-superseded", 409, "A newer agent process has claimed this host");
    public static readonly ProblemType HostContested = new("host-contested", 409, "Two agent processes claim this host in turn; this one is the other");
    public static readonly ProblemType StatementRequired = new("statement-required", 409, "After a restore from backup: claim the host again, and state what it holds");
    public static readonly ProblemType NotQuarantined = new("not-quarantined", 409, "There is no quarantine that this could end");
    public static readonly ProblemType SpoolGap = new("spool-gap", 409, "Reports before these are missing");
    public static readonly ProblemType ChangesGone = new("changes-gone", 410, "That place in the change log is gone");
    public static readonly ProblemType RequestTimeout = new("request-timeout", 408, "The request came too slowly");
    public static readonly ProblemType RateLimited = new("rate-limited", 429, "Too many requests: ask again after Retry-After");
    public static readonly ProblemType Stale = new("stale", 412, "The resource has changed since");
    public static readonly ProblemType BodyTooLarge = new("body-too-large", 413, "The body is too large");
    public static readonly ProblemType UnsupportedMediaType = new("unsupported-media-type", 415, "The body must be application/json");
    public static readonly ProblemType Internal = new("internal", 500, "The server failed; the fault is logged");
    public static readonly ProblemType StoreUnavailable = new("store-unavailable", 503, "The change could not be stored; nothing of it is");
    public static readonly ProblemType NotReady = new("not-ready", 503, "The store is not ready");
    public static readonly ProblemType SnapshotsBusy = new("snapshots-busy", 503, "Too many streams wait for what they open with: ask again after Retry-After");
    public static readonly ProblemType Stopping = new("stopping", 503, "The server is stopping: ask again");

    /// <summary>For a status that the framework chose by itself.</summary>
    public static ProblemType ForStatus(int status) => status switch
    {
        401 => Unauthenticated,
        403 => Forbidden,
        404 => NotFound,
        405 => MethodNotAllowed,
        408 => RequestTimeout,
        413 => BodyTooLarge,
        415 => UnsupportedMediaType,
        >= 500 => Internal,
        _ => new ProblemType(InvalidRequest.Code, status, InvalidRequest.Title),
    };
}

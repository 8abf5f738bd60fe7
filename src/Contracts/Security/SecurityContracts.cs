namespace Fleet.Contracts.Security;

/// <summary>Body of POST /v1/join-tokens: a single-use right to enrol an agent for one host.</summary>
/// <param name="ExpiresIn">Duration text such as <c>1h</c>; 1 hour when absent, at most 7 days.</param>
public sealed record JoinTokenRequest(string Host, string? ExpiresIn = null);

/// <param name="Token">Shown once, here; stored only as a hash.</param>
public sealed record JoinTokenCreated(string Id, string Host, string Token, DateTimeOffset ExpiresAt);

/// <summary>A join token as it is listed: never the token itself.</summary>
/// <param name="UsedAt">When an agent enrolled with it; null before.</param>
/// <param name="Credential">Id of the credential that it was exchanged for; that one is revoked as a token of its own.</param>
/// <param name="Version">The ETag, as a number.</param>
public sealed record JoinTokenResource(
    string Id,
    string Host,
    DateTimeOffset CreatedAt,
    DateTimeOffset ExpiresAt,
    DateTimeOffset? UsedAt,
    string? Credential,
    DateTimeOffset? RevokedAt,
    long Version);

/// <summary>Body of POST /v1/tokens.</summary>
/// <param name="Name">What it is for, 1 to 128 characters; need not be unique.</param>
/// <param name="Scopes">At least one; none that its creator lacks, and never <c>agent</c>.</param>
/// <param name="ExpiresIn">Duration text such as <c>30d</c>; 90 days when absent, at most 3650 days.</param>
public sealed record TokenRequest(string Name, IReadOnlyList<string> Scopes, string? ExpiresIn = null);

/// <param name="Token">Shown once, here; stored only as a hash.</param>
public sealed record TokenCreated(string Id, string Name, IReadOnlyList<string> Scopes, string Token, DateTimeOffset ExpiresAt);

/// <summary>A credential as it is listed: never the token itself.</summary>
/// <param name="Kind"><c>token</c>, or <c>agent</c>: bound to a host, made by enrolment or rotation.</param>
/// <param name="Host">The host that an agent's credential is bound to; null for tokens.</param>
/// <param name="ExpiresAt">Null: never.</param>
/// <param name="LastUsedAt">Coarse: after a restart of the control plane up to an hour behind.</param>
/// <param name="ReplacedBy">The credential that the agent made to take its place; it expires shortly after.</param>
/// <param name="Version">The ETag, as a number.</param>
public sealed record TokenResource(
    string Id,
    string Name,
    string Kind,
    IReadOnlyList<string> Scopes,
    string? Host,
    DateTimeOffset CreatedAt,
    DateTimeOffset? ExpiresAt,
    DateTimeOffset? RevokedAt,
    DateTimeOffset? LastUsedAt,
    string? ReplacedBy,
    long Version);

public static class TokenKinds
{
    public const string Token = "token";
    public const string Agent = "agent";
}

/// <summary>
/// Body of POST /v1/hosts/{host}/credential, sent with the credential that is to be replaced, or, to ask again, with the new
/// one. As at enrolment the agent makes the secret and sends its hash, so that a lost answer can be asked for again.
/// </summary>
/// <param name="CredentialId">The id inside the new credential, 16 lower-case hex digits.</param>
/// <param name="CredentialHash">SHA-256 of the whole new credential text, lower-case hex.</param>
public sealed record RotateRequest(string CredentialId, string CredentialHash);

/// <param name="PreviousExpiresAt">Until when the one it replaces is good as well; null when the new one asked.</param>
public sealed record RotateResult(string CredentialId, DateTimeOffset? PreviousExpiresAt);

/// <summary>
/// Body of POST /v1/agents/enroll. The agent makes its secret itself and sends only the hash, so that a lost answer can be
/// asked for again: the same join token with the same credential is answered alike, with another one it is refused.
/// </summary>
/// <param name="CredentialId">The id inside the credential, 16 lower-case hex digits.</param>
/// <param name="CredentialHash">SHA-256 of the whole credential text, lower-case hex.</param>
public sealed record EnrollRequest(string Host, string JoinToken, string CredentialId, string CredentialHash);

public sealed record EnrollResult(string Host);

namespace Fleet.Contracts.Security;

/// <summary>Body of POST /v1/join-tokens: a single-use right to enrol an agent for one host.</summary>
/// <param name="ExpiresIn">Duration text such as <c>1h</c>; 1 hour when absent, at most 7 days.</param>
public sealed record JoinTokenRequest(string Host, string? ExpiresIn = null);

/// <param name="Token">Shown once, here; stored only as a hash.</param>
public sealed record JoinTokenCreated(string Id, string Host, string Token, DateTimeOffset ExpiresAt);

/// <summary>
/// Body of POST /v1/agents/enroll. The agent makes its secret itself and sends only the hash, so that a lost answer can be
/// asked for again: the same join token with the same credential is answered alike, with another one it is refused.
/// </summary>
/// <param name="CredentialId">The id inside the credential, 16 lower-case hex digits.</param>
/// <param name="CredentialHash">SHA-256 of the whole credential text, lower-case hex.</param>
public sealed record EnrollRequest(string Host, string JoinToken, string CredentialId, string CredentialHash);

public sealed record EnrollResult(string Host);

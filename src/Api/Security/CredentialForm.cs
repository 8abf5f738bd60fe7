using System.Text.RegularExpressions;
using Fleet.Api.Problems;
using Fleet.Data.Entities;

namespace Fleet.Api.Security;

/// <summary>A credential that an agent made itself, as it comes in: the id and the hash of the secret.</summary>
internal static partial class CredentialForm
{
    public static void Check(string id, string hash, ValidationErrors errors)
    {
        if (!IsId(id))
        {
            errors.Add("$.credentialId", "16 lower-case hex digits.");
        }

        if (!HashRegex().IsMatch(hash))
        {
            errors.Add("$.credentialHash", "SHA-256 as 64 lower-case hex digits.");
        }
    }

    public static bool IsId(string id) => IdRegex().IsMatch(id);

    public static CredentialRow OfAgent(string host, string id, string hash, long now, long revision) => new()
    {
        Id = id,
        Hash = hash,
        Name = $"agent of {host}",
        Scopes = Scopes.Agent,
        Host = host,
        CreatedAt = now,
        Version = revision,
    };

    [GeneratedRegex(@"\A[0-9a-f]{16}\z")]
    private static partial Regex IdRegex();

    [GeneratedRegex(@"\A[0-9a-f]{64}\z")]
    private static partial Regex HashRegex();
}

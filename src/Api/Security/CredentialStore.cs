using System.Collections.Concurrent;
using System.Security.Cryptography;
using System.Text;
using Fleet.Contracts.Security;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Security;

public sealed record Credential(string Id, string Hash, string[] Scopes, string? Host, long? ExpiresAt, long? RevokedAt)
{
    public static Credential From(CredentialRow row) =>
        new(row.Id, row.Hash, row.Scopes.Split(' '), row.Host, row.ExpiresAt, row.RevokedAt);

    public bool IsValidAt(long now) => RevokedAt is null && (ExpiresAt is not { } expires || expires > now);
}

/// <summary>Finds and checks credentials. What was read once is kept: this process is the only writer, and says when it writes.</summary>
public sealed class CredentialStore(StoreContexts contexts, TimeProvider time)
{
    private readonly ConcurrentDictionary<string, Credential> _known = [];
    private readonly ConcurrentDictionary<string, long> _lastUse = [];
    private int _changes;

    /// <summary>When each credential was last accepted since this process started, unix ms.</summary>
    public IReadOnlyDictionary<string, long> LastUse => _lastUse;

    /// <summary>The credential a token stands for; null when there is none, or it is expired or revoked.</summary>
    public async ValueTask<Credential?> FindAsync(string token, CancellationToken cancellationToken)
    {
        if (!TokenText.TryGetId(token, out var id))
        {
            return null;
        }

        if (!_known.TryGetValue(id, out var credential))
        {
            var before = Volatile.Read(ref _changes);
            await using var db = contexts.OpenReader();
            if (await db.Credentials.SingleOrDefaultAsync(row => row.Id == id, cancellationToken) is not { } row)
            {
                return null;
            }

            credential = Credential.From(row);
            if (Volatile.Read(ref _changes) == before)
            {
                _known[id] = credential;
                if (Volatile.Read(ref _changes) != before)
                {
                    // It may have changed, and been forgotten, between the check and the write: then this copy must go too.
                    _known.TryRemove(id, out _);
                }
            }
        }

        var now = time.GetUtcNow().ToUnixTimeMilliseconds();
        if (!HashEquals(TokenText.Hash(token), credential.Hash) || !credential.IsValidAt(now))
        {
            return null;
        }

        _lastUse[id] = now;
        return credential;
    }

    /// <summary>To be called after every committed change to a credential.</summary>
    public void Forget(string id)
    {
        Interlocked.Increment(ref _changes);
        _known.TryRemove(id, out _);
    }

    public static bool HashEquals(string left, string right) =>
        CryptographicOperations.FixedTimeEquals(Encoding.ASCII.GetBytes(left), Encoding.ASCII.GetBytes(right));
}

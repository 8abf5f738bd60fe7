using System.Collections.Concurrent;
using Fleet.Data.Storage;
using Microsoft.EntityFrameworkCore;

namespace Fleet.Api.Security;

/// <summary>What goes on being sent after its request was authorized: it ends with the credential, not with the connection.</summary>
public sealed class CredentialStreams(StoreContexts contexts)
{
    private readonly ConcurrentDictionary<Held, string> _open = [];

    /// <summary>Registers a stream; first, so that whoever revokes the credential finds it, and then <see cref="IsRevokedAsync"/> is asked.</summary>
    public Held Hold(string credential)
    {
        var held = new Held(this);
        _open[held] = credential;
        return held;
    }

    public async Task<bool> IsRevokedAsync(string credential, CancellationToken cancellationToken)
    {
        await using var db = contexts.OpenReader();
        return await db.Credentials.AnyAsync(row => row.Id == credential && row.RevokedAt != null, cancellationToken);
    }

    /// <summary>To be called after the commit that revokes it.</summary>
    public void End(string credential)
    {
        foreach (var (held, owner) in _open)
        {
            if (owner == credential)
            {
                held.End();
            }
        }
    }

    public sealed class Held(CredentialStreams streams) : IDisposable
    {
        // Never disposed: it may be ended by another thread at any time, and holds nothing but memory.
        private readonly CancellationTokenSource _ended = new();

        /// <summary>Cancelled once the credential is revoked.</summary>
        public CancellationToken Ended => _ended.Token;

        public void Dispose() => streams._open.TryRemove(this, out _);

        internal void End() => _ended.Cancel();
    }
}

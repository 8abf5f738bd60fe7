using Fleet.Data;
using Fleet.Data.Entities;
using Fleet.Data.Storage;
using Fleet.Data.Writing;
using Microsoft.EntityFrameworkCore;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

namespace Fleet.Api.Tests.Support;

/// <summary>The store alone, on a real file: contexts and the running writer.</summary>
public sealed class TestStore : IAsyncDisposable
{
    private readonly TempFolder _folder = new();
    private readonly ServiceProvider _provider;
    private readonly List<IHostedService> _services;

    private TestStore(Action<IServiceCollection>? configure, Action<DbContextOptionsBuilder>? configureWriter, Action<DbContextOptionsBuilder>? configureReader)
    {
        var services = new ServiceCollection();
        services.AddLogging();
        services.AddSingleton(TimeProvider.System);
        services.AddOptions<StoreOptions>().Configure(options =>
        {
            options.Folder = _folder.Path;
            options.ConfigureWriter = configureWriter;
            options.ConfigureReader = configureReader;
        });
        services.AddFleetStore();
        configure?.Invoke(services);
        _provider = services.BuildServiceProvider();
        _services = [.. _provider.GetServices<IHostedService>()];
    }

    public IServiceProvider Services => _provider;

    public StoreContexts Contexts => _provider.GetRequiredService<StoreContexts>();

    public StoreWriter Writer => _provider.GetRequiredService<StoreWriter>();

    public string Folder => _folder.Path;

    public static async Task<TestStore> StartAsync(
        Action<IServiceCollection>? configure = null,
        Action<DbContextOptionsBuilder>? configureWriter = null,
        Action<DbContextOptionsBuilder>? configureReader = null)
    {
        var store = new TestStore(configure, configureWriter, configureReader);
        foreach (var service in store._services)
        {
            await service.StartAsync(CancellationToken.None);
        }

        return store;
    }

    public Task<T> WriteAsync<T>(Func<WriteScope, Task<T>> apply) => Writer.ExecuteAsync(apply, CancellationToken.None);

    public async Task<T> ReadAsync<T>(Func<FleetDbContext, Task<T>> read)
    {
        await using var db = Contexts.OpenReader();
        return await read(db);
    }

    /// <summary>A VM without anything around it.</summary>
    public Task<VmRow> AddVmAsync(string id = "vm-1", string? host = "host-a") => WriteAsync(scope =>
    {
        var revision = scope.Change(ChangeKinds.VmCreated, ChangeResources.Vm(id), "test");
        var vm = new VmRow
        {
            Id = id,
            Host = host,
            Memory = """[{"guestPhysicalAddress":"0x0","bytes":1099511627776,"pageBytes":4096}]""",
            Attach = """{"kind":"handoff"}""",
            MemoryInstance = revision,
            Generation = revision,
            PlacementEpoch = revision,
            Version = revision,
        };
        scope.Db.Vms.Add(vm);
        scope.Touch(host, id);
        return Task.FromResult(vm);
    });

    public async ValueTask DisposeAsync()
    {
        foreach (var service in Enumerable.Reverse(_services))
        {
            await service.StopAsync(CancellationToken.None);
        }

        await _provider.DisposeAsync();
        _folder.Dispose();
    }
}
